"""Our one-stage detectors against torchvision's on shared random weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import detection

from tldet.models.detector import Detector, Preprocess, build_detector
from tldet.structures import Batch, Target
from tldet.transfer.dialects.torchvision import from_torchvision

CLASSES = 91
BACKBONE = {"type": "TorchvisionBackbone", "name": "resnet50"}
RETINA = {
    "backbone": {**BACKBONE, "levels": [2, 3, 4]},
    "neck": {"type": "FPN", "extra": "p6p7_p5"},
    "head": {
        "type": "RetinaNetHead",
        "num_classes": CLASSES,
        "settings": {"step": "torchvision", "score": 0.02, "keep": 300},
    },
}


def randomise(model: nn.Module) -> None:
    """Weights that keep activations alive and scores apart."""
    generator = torch.Generator().manual_seed(5)
    for name, p in sorted([*model.named_parameters(), *model.named_buffers()]):
        if name.endswith("running_var") or (p.ndim == 1 and name.endswith("weight")):
            p.data.uniform_(0.4, 0.6, generator=generator)
        elif p.ndim >= 2:
            p.data.normal_(0, (1.6 / p[0].numel()) ** 0.5, generator=generator)
        elif p.is_floating_point():
            p.data.normal_(0, 0.05, generator=generator)


@pytest.fixture(scope="module")
def pair() -> tuple[nn.Module, Detector]:
    options = {"weights": None, "weights_backbone": None, "min_size": 192, "max_size": 256}
    reference = detection.retinanet_resnet50_fpn(**options, score_thresh=0.02)
    randomise(reference)
    ours = build_detector(RETINA)
    missing, unexpected = ours.load_state_dict(from_torchvision(reference.state_dict()), strict=False)
    assert not unexpected
    assert [key for key in missing if not key.endswith("num_batches_tracked")] == []
    return reference.eval(), ours.eval()


def pictures() -> tuple[Tensor, list[Target]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (2, 3, 192, 256), generator=generator, dtype=torch.uint8)
    boxes = torch.tensor([[10.0, 20.0, 90.0, 120.0], [100.0, 50.0, 180.0, 170.0], [5.0, 5.0, 30.0, 40.0]])
    nothing = torch.zeros(2, dtype=torch.bool)
    first = Target(boxes[:2], torch.tensor([3, 17]), nothing, image_id=7)
    return images, [first, Target(boxes[2:], torch.tensor([44]), nothing[:1], image_id=8)]


def test_raw_outputs_and_detections(pair: tuple[nn.Module, Detector]) -> None:
    reference, ours = pair
    images, _ = pictures()
    scaled = images.float() / 255
    with torch.no_grad():
        transformed, _ = reference.transform(list(scaled))
        features = list(reference.backbone(transformed.tensors).values())
        batch = Batch(images, [(192, 256)] * 2, [], [(192, 256)] * 2)
        x = ours.normalise(batch)
        mine = ours.features(x)
        for a, b in zip(features, mine, strict=True):
            torch.testing.assert_close(b, a, atol=1e-4, rtol=1e-4)
        raw = ours.head(mine)
        expected = reference(list(scaled))
        outputs = reference.head(features)
        flat = [level.permute(0, 2, 3, 1).reshape(2, -1, CLASSES) for level in raw.logits]
        torch.testing.assert_close(torch.cat(flat, 1), outputs["cls_logits"], atol=1e-4, rtol=1e-4)
    found = ours.predict(batch)
    for a, b in zip(expected, found, strict=True):
        assert len(b) == len(a["scores"]) >= 50
        torch.testing.assert_close(b.scores, a["scores"], atol=1e-4, rtol=1e-4)
        # Scores equal to the last bits may change places, so each of theirs must find its own among ours.
        same = b.labels[:, None] == a["labels"][None]
        near = torch.cdist(b.boxes, a["boxes"], p=float("inf")) < 0.02
        close = (b.scores[:, None] - a["scores"][None]).abs() < 1e-4
        assert (same & near & close).any(0).all()


def test_losses(pair: tuple[nn.Module, Detector]) -> None:
    reference, ours = pair
    images, targets = pictures()
    theirs_in = [{"boxes": t.boxes.clone(), "labels": t.labels} for t in targets]
    reference.train()
    reference.backbone.eval()
    with torch.no_grad():
        expected = reference(list(images.float() / 255), theirs_in)
    reference.eval()
    names = {"classification": "loss_cls", "bbox_regression": "loss_bbox"}
    with torch.no_grad():
        mine = ours.loss(Batch(images, [(192, 256)] * 2, targets, [(192, 256)] * 2, seed=1))
    assert {names[key] for key in expected} == set(mine)
    for key, value in expected.items():
        torch.testing.assert_close(mine[names[key]], value, atol=1e-4, rtol=1e-4)


def test_preprocess_is_torchvision_s() -> None:
    assert Preprocess().mean == pytest.approx([255 * v for v in (0.485, 0.456, 0.406)])
    assert Preprocess().std == pytest.approx([255 * v for v in (0.229, 0.224, 0.225)])
