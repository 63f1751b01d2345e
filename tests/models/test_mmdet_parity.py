"""mmdet's checkpoints, imported, against what MMDetection computes with the same weights."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from tldet import checkpoint
from tldet.config import read_config
from tldet.models.detector import Detector
from tldet.structures.detections import Detections
from tldet.structures.masks import InstanceMasks
from tldet.structures.target import Target
from tldet.transfer.restore import restore
from tldet.workflows.import_checkpoint import import_checkpoint

CASES = {
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco",
    "fcos": "fcos/fcos_r50_caffe_fpn_gn_head_center_normbbox_centeronreg_giou_1x_coco",
    "atss": "atss/atss_r50_fpn_1x_coco",
    "gfl": "gfl/gfl_r50_fpn_1x_coco",
    "faster_rcnn": "faster_rcnn/faster_rcnn_r50_fpn_1x_coco",
    "mask_rcnn": "mask_rcnn/mask_rcnn_r50_fpn_1x_coco",
    "cascade_rcnn": "cascade_rcnn/cascade_rcnn_r50_fpn_1x_coco",
    "cascade_mask_rcnn": "cascade_rcnn/cascade_mask_rcnn_r50_fpn_1x_coco",
}


class Case:
    """One reference and our detector filled with its weights."""

    def __init__(self, name: str, folder: Path, work: Path) -> None:
        facts = json.loads((folder / "mmdet" / f"{name}.json").read_text())
        self.losses: dict[str, float] = {k: v for k, v in facts["losses"].items() if not k.endswith("acc")}
        self.outputs = dict(np.load(folder / "mmdet" / f"{name}.npz"))
        self.detector = imported(name, facts["state"], weights_of(folder), work)
        given = np.load(folder / "mmdet" / "input.npz")
        self.x = torch.from_numpy(given["image"].astype(np.float32))
        self.target = target_of(given["gt_boxes"], given["gt_labels"], tuple(self.x.shape[-2:]))


def weights_of(folder: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity_weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def imported(name: str, shapes: dict[str, list[int]], weights: ModuleType, folder: Path) -> Detector:
    """The detector that ``tldet import`` makes of a file with these weights under mmdet's names."""
    state = {key: torch.from_numpy(np.asarray(weights.tensor_for(key, tuple(shape)))) for key, shape in shapes.items()}
    torch.save({"state_dict": state, "meta": {}}, folder / "theirs.pth")
    import_checkpoint(folder / "theirs.pth", out=folder / "ours.pt", model=name)
    written = checkpoint.load_checkpoint(folder / "ours.pt")["config"]["model"]
    assert written["head"] == read_config(CASES[name]).data["model"]["head"], "the shipped config, nothing else"
    return restore(folder / "ours.pt")[0]


def target_of(boxes: np.ndarray, labels: np.ndarray, size: tuple[int, int]) -> Target:
    count = len(boxes)
    masks = torch.zeros(count, *size, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, np.round(boxes).astype(int).tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    box, label = torch.from_numpy(boxes).float(), torch.from_numpy(labels).long()
    return Target(box, label, torch.zeros(count, dtype=torch.bool), masks=masks)


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = shared / "parity"
    if not (folder / "mmdet" / f"{request.param}.json").is_file():
        pytest.skip(f"needs reference outputs in {folder}")
    return Case(request.param, folder, tmp_path_factory.mktemp(request.param))


def test_parity_of_features(case: Case) -> None:
    with torch.no_grad():
        levels = case.detector.features(case.x)
    assert len(levels) == 5
    for number, level in enumerate(levels):
        mean, deviation, largest = case.outputs[f"feat{number}_stats"]
        torch.testing.assert_close(
            level[:, :4].numpy().squeeze(), case.outputs[f"feat{number}"].squeeze(), atol=1e-3 * largest, rtol=0
        )
        found = [float(v) for v in (level.mean(), level.std(), level.abs().max())]
        assert found == pytest.approx([mean, deviation, largest], abs=1e-3 * largest)


def test_parity_of_losses(case: Case) -> None:
    """The targets are given as in training scripts of torchvision."""
    target = {"boxes": case.target.boxes, "labels": case.target.labels, "masks": case.target.masks}
    with torch.no_grad():
        found = {name: float(value) for name, value in case.detector.losses(case.x, [target]).items()}
    assert found == pytest.approx(case.losses, rel=1e-3, abs=1e-5)


def test_parity_leaves_the_loss_of_validation_alone(shared: Path, tmp_path: Path) -> None:
    """mmdet's FCOS multiplies distances by the stride once too often where its loss is taken in eval mode, as it was
    for the numbers here: so do we, but only where nothing is drawn at random, that is, for a comparison."""
    case = Case("fcos", shared / "parity", tmp_path)
    with torch.no_grad():
        compared, validated = (case.detector.losses(case.x, [case.target], seed=seed) for seed in (None, 0))
        trained = case.detector.train().losses(case.x, [case.target])
    assert float(compared["loss_bbox"]) == pytest.approx(case.losses["loss_bbox"], rel=1e-3)
    assert float(validated["loss_bbox"]) == pytest.approx(float(trained["loss_bbox"]))
    assert abs(float(trained["loss_bbox"]) - case.losses["loss_bbox"]) > 0.01


def test_parity_of_detections(case: Case) -> None:
    (found,) = case.detector.predict_tensor(case.x)
    pairs = same_as(found, case.outputs)
    assert len(found) == len(case.outputs["boxes"]) == 100
    assert len(pairs) >= 97
    if "mask_areas" in case.outputs:
        assert isinstance(found.masks, InstanceMasks)
        ours, theirs = found.masks.areas().double().numpy(), case.outputs["mask_areas"]
        near = [abs(ours[a] - theirs[b]) <= max(2.0, 5e-3 * theirs[b]) for a, b in pairs]
        assert theirs.max() > 1000
        assert sum(near) >= 97
        assert found.masks.dense().flatten(1).sum(1).tolist() == ours.tolist()


def same_as(found: Detections, outputs: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    """(ours, theirs) of the detections that agree: label, box within 0.1 pixel, score within 1e-3; each used once."""
    boxes, scores, labels = (torch.from_numpy(outputs[key]) for key in ("boxes", "scores", "labels"))
    same = (
        (found.labels[:, None] == labels[None])
        & (torch.cdist(found.boxes, boxes.float(), p=float("inf")) < 0.1)
        & ((found.scores[:, None] - scores[None]).abs() < 1e-3)
    )
    pairs: list[tuple[int, int]] = []
    for theirs in range(len(boxes)):
        free = same[:, theirs].nonzero().flatten().tolist()
        if free:
            pairs.append((free[0], theirs))
            same[free[0]] = False
    return pairs
