"""Non-maximum suppression within classes and across them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.ops import box_iou

from tldet.config import read_config
from tldet.errors import ConfigError
from tldet.inference.loading import load as load_predictor
from tldet.models.detector import build_detector
from tldet.models.postprocess import Candidates, SelectSettings, select, set_nms, to_detections
from tldet.structures.detections import Detections

BOXES = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10.5], [0, 0, 10, 9], [50, 50, 60, 60]])
SCORES, LABELS = torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([0, 1, 0, 1])


def kept(settings: SelectSettings, count: int = 4) -> Detections:
    good = (torch.arange(4) < count)[None]
    found = select(Candidates(BOXES[None], SCORES[None], LABELS[None], good), [(60, 60)], settings, None)
    assert found.boxes.shape == (1, settings.max_per_img, 4)
    assert not found.boxes[0, int(found.counts) :].any(), "zeros behind the detections"
    return to_detections(found, [(60, 60)])[0]


def test_nms_of_near_duplicates_of_two_classes() -> None:
    both = kept(SelectSettings())
    assert both.scores.tolist() == pytest.approx([0.9, 0.8, 0.6])
    one = kept(SelectSettings(nms_per_class=False))
    assert one.scores.tolist() == pytest.approx([0.9, 0.6])
    assert one.labels.tolist() == [0, 1]
    assert len(kept(SelectSettings(nms_per_class=False, max_per_img=1))) == 1
    assert len(kept(SelectSettings(nms_per_class=False), 0)) == 0


WITH_NMS = sorted({path.stem for path in Path("configs/recipes").glob("*lite0*.py")} - {"dfine_lite0"})


@pytest.mark.parametrize("name", WITH_NMS)
def test_every_head_uses_nms_per_class(name: str) -> None:
    section = read_config(f"recipes/{name}")["model"]
    section["backbone"]["weights"] = None
    torch.manual_seed(0)
    model = build_detector(section, ["a", "b", "c"]).eval()
    for part in model.modules():
        if hasattr(getattr(part, "settings", None), "nms_per_class"):
            object.__setattr__(part.settings, "score_thr", 0.0)
    from tldet.data.loader import Sample, collate
    from tldet.inference.predictor import no_target

    batch = collate([Sample(torch.randint(0, 255, (3, 96, 128), dtype=torch.uint8), no_target(), (96, 128))])

    def overlapping() -> int:
        with torch.inference_mode():
            found = model.predict(batch)[0]
        iou = box_iou(found.boxes, found.boxes).triu(1)
        same = found.labels[:, None] == found.labels
        assert not (iou[same] > 0.71).any(), "never within a class"
        return int((iou > 0.71).sum())

    assert overlapping() > 0, "two classes at one place"
    set_nms(model, per_class=False)
    assert overlapping() == 0
    set_nms(model, per_class=True)
    assert overlapping() > 0


def test_a_head_without_nms_per_class_is_named() -> None:
    with pytest.raises(ConfigError, match="--nms-agnostic"):
        set_nms(nn.Linear(2, 2), per_class=False)


def test_nms_per_class_is_set_when_a_checkpoint_is_loaded(run: Path) -> None:
    for chosen, expected in ((None, True), (False, False), (True, True)):
        head = load_predictor(run / "best.pt", "cpu", "fp32", nms_per_class=chosen).model.head
        assert head.settings.nms_per_class is expected
