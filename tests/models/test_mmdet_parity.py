"""The shipped configs against what mmdet computes for its own, on weights that follow from the tensors' names."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from tldet.config import load
from tldet.models.detector import Detector, build_detector
from tldet.structures import Target
from tldet.transfer.dialects.mmdet import from_mmdet

CONFIGS = {
    "retinanet": "retinanet/retinanet_r50_fpn_1x_coco",
    "fcos": "fcos/fcos_r50_caffe_fpn_gn_head_1x_coco",
    "atss": "atss/atss_r50_fpn_1x_coco",
    "gfl": "gfl/gfl_r50_fpn_1x_coco",
}


class Case(NamedTuple):
    """One detector of mmdet: what it is called, what it computed, and ours with the same weights."""

    name: str
    numbers: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]
    detector: Detector
    image: Tensor
    target: Target


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def case(request: pytest.FixtureRequest, shared: Path) -> Case:
    folder = shared / "parity"
    if not folder.is_dir():
        pytest.skip(f"needs mmdet's outputs in {folder}")
    numbers = json.loads((folder / "mmdet" / f"{request.param}.json").read_text())
    given = np.load(folder / "mmdet" / "input.npz")
    boxes = torch.from_numpy(given["gt_boxes"]).float()
    target = Target(boxes, torch.from_numpy(given["gt_labels"]).long(), torch.zeros(len(boxes), dtype=torch.bool))
    arrays = dict(np.load(folder / "mmdet" / f"{request.param}.npz"))
    image = torch.from_numpy(given["image"]).float()
    return Case(request.param, numbers, arrays, filled(request.param, folder, numbers), image, target)


def filled(name: str, folder: Path, numbers: Mapping[str, Any]) -> Detector:
    """The shipped config's detector, every tensor filled from its name in mmdet."""
    spec = importlib.util.spec_from_file_location("weights", folder / "weights.py")
    assert spec is not None
    assert spec.loader is not None
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    model = load(CONFIGS[name]).data["model"]
    model["backbone"]["weights"] = None
    detector = build_detector(model).eval()
    shapes = {key: tuple(shape) for key, shape in numbers["state"].items()}
    state = {key: torch.from_numpy(np.asarray(weights.tensor_for(key, shape))) for key, shape in shapes.items()}
    detector.load_state_dict(from_mmdet(state), strict=True)
    return detector


def test_parity_of_the_pyramid(case: Case) -> None:
    with torch.no_grad():
        levels = case.detector.features(case.image)
    assert len(levels) == 5
    for number, level in enumerate(levels):
        expected = torch.from_numpy(case.arrays[f"feat{number}"]).float()
        mean, deviation, greatest = (float(v) for v in case.arrays[f"feat{number}_stats"])
        close = {"rtol": 0, "atol": 1e-3 * greatest}
        torch.testing.assert_close(level[0, :4], expected.reshape(level[0, :4].shape), **close)
        found = torch.stack([level.mean(), level.std(), level.abs().max()])
        torch.testing.assert_close(found, torch.tensor([mean, deviation, greatest]), **close)


def test_parity_of_the_losses(case: Case) -> None:
    with torch.no_grad():
        losses = case.detector.losses(case.image, [case.target])
    expected = dict(case.numbers["losses"])
    if case.name == "fcos":
        expected.pop("loss_bbox")  # see the test below
    assert set(losses) == set(case.numbers["losses"])
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(value, rel=1e-3, abs=1e-5), name


def test_parity_of_the_box_loss_of_fcos(case: Case) -> None:
    """mmdet's number was taken with the network in eval mode, where its forward multiplies the distances by the stride
    but its targets stay in strides. GIoU does not change when both boxes are scaled about their location, so distances
    multiplied by the stride once more give the same; the loss of training is the one without."""
    if case.name != "fcos":
        pytest.skip("the other losses do not depend on the mode")
    head: Any = case.detector.head
    with torch.no_grad():
        raw = head(case.detector.features(case.image))
        scaled = tuple(level * stride for level, stride in zip(raw.distances, head.strides, strict=True))
        losses = head.loss(raw._replace(distances=scaled), [case.target], [tuple(case.image.shape[-2:])], None)
    assert float(losses["loss_bbox"]) == pytest.approx(case.numbers["losses"]["loss_bbox"], rel=1e-3)


def test_parity_of_the_detections(case: Case) -> None:
    (found,) = case.detector.predict_tensor(case.image)
    boxes, scores = (torch.from_numpy(case.arrays[name]).float() for name in ("boxes", "scores"))
    labels = torch.from_numpy(case.arrays["labels"]).long()
    assert len(found) == len(boxes)
    same = found.labels[:, None] == labels
    near = torch.cdist(found.boxes, boxes, p=float("inf")) < 0.1
    close = (found.scores[:, None] - scores).abs() < 1e-3
    matched = (same & near & close).any(0)
    assert matched.float().mean() >= 0.97, f"{int(matched.sum())} of {len(matched)}"
