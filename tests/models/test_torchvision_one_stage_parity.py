"""Our one-stage detectors against torchvision's on shared random weights."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from tldet.config import read_config
from tldet.models.detector import Detector, build_detector
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.transfer.interop.dialects.torchvision import from_torchvision

CLASSES = 91
SIZE = (192, 256)
EXACT = {"atol": 1e-4, "rtol": 1e-4}
NAMES = {"classification": "loss_cls", "bbox_regression": "loss_bbox", "bbox_ctrness": "loss_centerness"}
SCORES = {"retinanet_resnet50_fpn": 0.02, "retinanet_resnet50_fpn_v2": 0.02, "fcos_resnet50_fpn": 0.16}


class Pair(NamedTuple):
    """A model of torchvision and ours with its weights."""

    reference: Any
    ours: Detector


RECIPES = {
    "retinanet_resnet50_fpn": "retinanet_r50",
    "retinanet_resnet50_fpn_v2": "retinanet_r50_v2",
    "fcos_resnet50_fpn": "fcos_r50",
}


def model_of(name: str) -> dict[str, Any]:
    """The shipped recipe's model with torchvision's classes."""
    model: dict[str, Any] = read_config(RECIPES[name]).data["model"]
    model["backbone"]["weights"] = None
    model["head"]["num_classes"] = CLASSES
    model["head"]["settings"]["score_thr"] = SCORES[name]
    if name.startswith("retinanet"):
        model["head"]["settings"]["loss_normalizer"] = "image"
    return model


def randomize(model: nn.Module) -> None:
    """Weights that keep activations alive and scores apart."""
    generator = torch.Generator().manual_seed(5)
    for name, p in sorted([*model.named_parameters(), *model.named_buffers()]):
        if name.endswith("running_var") or (p.ndim == 1 and name.endswith("weight")):
            p.data.uniform_(0.4, 0.6, generator=generator)
        elif p.ndim >= 2:
            p.data.normal_(0, (1.6 / p[0].numel()) ** 0.5, generator=generator)
        elif p.is_floating_point():
            p.data.normal_(0, 0.05, generator=generator)


@pytest.fixture(scope="module", params=sorted(SCORES))
def pair(request: pytest.FixtureRequest) -> Pair:
    options = {"weights": None, "weights_backbone": None, "min_size": SIZE[0], "max_size": SIZE[1]}
    reference = getattr(detection, request.param)(**options, score_thresh=SCORES[request.param]).eval()
    randomize(reference)
    ours = build_detector(model_of(request.param)).eval()
    ours.load_state_dict(from_torchvision(reference.state_dict()), strict=True)
    return Pair(reference, ours)


def inputs() -> tuple[Tensor, list[Target]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, *SIZE), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 20.0, 90.0, 120.0], [100.0, 50.0, 180.0, 170.0], [5.0, 5.0, 30.0, 40.0]])
    nothing = torch.zeros(2, dtype=torch.bool)
    first = Target(boxes[:2], torch.tensor([3, 17]), nothing, image_id=7)
    return images, [first, Target(boxes[2:], torch.tensor([44]), nothing[:1], image_id=8)]


def flat(levels: tuple[Tensor, ...], channels: int) -> Tensor:
    return torch.cat([level.permute(0, 2, 3, 1).reshape(len(level), -1, channels) for level in levels], 1)


def test_parity_of_raw_outputs(pair: Pair) -> None:
    images, _ = inputs()
    head: Any = pair.ours.head
    with torch.no_grad():
        transformed, _ = pair.reference.transform(list(images.float() / 255))
        features = list(pair.reference.backbone(transformed.tensors).values())
        expected = pair.reference.head(features)
        mine = pair.ours.features(pair.ours.normalize(Batch(images, [SIZE] * 2, [], [SIZE] * 2)))
        for theirs, level in zip(features, mine, strict=True):
            torch.testing.assert_close(level, theirs, **EXACT)
        raw = head(mine)
    torch.testing.assert_close(flat(raw.logits, CLASSES), expected["cls_logits"], **EXACT)
    if "bbox_ctrness" in expected:
        strides = tuple(level / stride for level, stride in zip(raw.distances, head.strides, strict=True))
        torch.testing.assert_close(flat(strides, 4), expected["bbox_regression"], **EXACT)
        torch.testing.assert_close(flat(raw.centerness, 1), expected["bbox_ctrness"], **EXACT)
    else:
        torch.testing.assert_close(flat(raw.deltas, 4), expected["bbox_regression"], **EXACT)


def test_parity_of_detections(pair: Pair) -> None:
    images, _ = inputs()
    with torch.no_grad():
        expected = pair.reference(list(images.float() / 255))
    found = pair.ours.predict(Batch(images, [SIZE] * 2, [], [SIZE] * 2))
    for a, b in zip(expected, found, strict=True):
        assert len(b) == len(a["scores"]) >= 50
        torch.testing.assert_close(b.scores, a["scores"], **EXACT)
        # Scores equal to the last bits may change places, so each of theirs must find its own among ours.
        same = b.labels[:, None] == a["labels"]
        near = torch.cdist(b.boxes, a["boxes"], p=float("inf")) < 0.02
        close = (b.scores[:, None] - a["scores"]).abs() < 1e-4
        assert (same & near & close).any(0).all()


def test_parity_of_losses(pair: Pair) -> None:
    images, targets = inputs()
    given = [{"boxes": t.boxes.clone(), "labels": t.labels} for t in targets]
    pair.reference.train()
    pair.reference.backbone.eval()
    with torch.no_grad():
        expected = pair.reference(list(images.float() / 255), given)
        mine = pair.ours.loss(Batch(images, [SIZE] * 2, targets, [SIZE] * 2, seed=1))
    pair.reference.eval()
    assert {NAMES[key] for key in expected} == set(mine)
    for key, value in expected.items():
        torch.testing.assert_close(mine[NAMES[key]], value, **EXACT)


def test_parity_of_published_retinanet_key_names() -> None:
    """Its file is older than the blocks in torchvision's towers and numbers their layers through: 0, 2, 4, 6."""
    now = detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None).state_dict()
    before = {}
    for key, value in now.items():
        parts = key.split(".")
        if "conv" in parts and key.startswith("head."):
            parts[3:5] = [str(2 * int(parts[3]))]
        before[".".join(parts)] = value
    assert set(before) != set(now)
    assert from_torchvision(before).keys() == from_torchvision(now).keys()
