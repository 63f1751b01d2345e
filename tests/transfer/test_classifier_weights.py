"""Classifier weights copied between heads: unchanged outputs for old classes, low scores for new ones."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tldet.config import build, read_config
from tldet.models.detector import Detector
from tldet.models.pooling import regions_of
from tldet.registry import HEADS
from tldet.transfer.classifier_weights import PRIOR, copy_classes
from tldet.transfer.weights import LoadReport, load_detector

ONE_STAGE = ["retinanet_lite0", "fcos_lite0", "atss_lite0", "gfl_lite0"]
TWO_STAGE = ["faster_rcnn_lite0", "mask_rcnn_lite0", "cascade_mask_rcnn_lite0"]
OLD = ["a", "b", "c"]
LISTS = {"subset": ["c", "a"], "superset": ["b", "x", "a", "c", "y"], "permuted": ["c", "a", "b"]}
SIZES, WIDTH = ((8, 12), (4, 6), (2, 3), (1, 2)), 64


def test_each_layout_of_a_layer() -> None:
    zeros = torch.zeros
    boxes = copy_classes("head.bbox_pred", torch.arange(12.0), zeros(12), OLD, ["b", None, "a"])
    assert boxes is not None
    assert boxes.tolist() == [4, 5, 6, 7, 4, 5, 6, 7, 0, 1, 2, 3], "a new class's box is the mean of all"
    anchors = copy_classes("head.cls_score", torch.arange(1.0, 7), torch.full((4,), -5.0), OLD, ["b", None])
    assert anchors is not None
    assert anchors.tolist() == [2, -5, 5, -5], "two anchors, each with all classes"
    weights = copy_classes("head.cls_score", torch.ones(6, 2), torch.full((4, 2), 3.0), OLD, ["b", None])
    assert weights is not None
    assert weights[:, 0].tolist() == [1, 0, 1, 0]
    masks = copy_classes("head.mask_logits", torch.tensor([[1.0], [2], [6]]), zeros(2, 1), OLD, [None, "a"])
    assert masks is not None
    assert masks.tolist() == [[3], [1]]
    one_class = copy_classes("head.cls_score", torch.arange(1.0, 3), zeros(2), ["a"], ["a"])
    assert one_class is not None
    assert one_class.tolist() == [1, 2], "two anchors of one class, not a class and background"
    one_box = torch.arange(4.0)
    assert copy_classes("head.bbox_pred", one_box, zeros(4), OLD, ["b", None, "a"]) is one_box
    assert copy_classes("head.cls_score", torch.arange(4.0), zeros(3), OLD, ["x", "y"]) is None
    assert copy_classes("head.cls_score", zeros(4, 9), zeros(4, 8), OLD, ["b", "x", "a"]) is None
    assert copy_classes("head.cls_score", zeros(4), zeros(3), [None, "a", "b"], [None, "c"], background=True) is None


@pytest.mark.parametrize("new", [1, 3, 200])
def test_new_classes_of_a_softmax_share_the_background_probability(new: int) -> None:
    """The old classes' probabilities stay, whatever the features are; background and new ones sum to background."""
    generator = torch.Generator().manual_seed(0)
    weight, bias, x = (torch.randn(s, generator=generator).double() for s in ((4, 5), (4,), (50, 5)))
    names = ["b", *[None] * new, "a"]
    empty = torch.zeros(len(names) + 1, 5).double()
    carried = [copy_classes("cls_score", old, fresh, OLD, names, background=True)
               for old, fresh in ((weight, empty), (bias, empty[:, 0]))]  # fmt: skip
    before = (x @ weight.T + bias)[:, [1, 0, 3]].softmax(-1)  # without class c, which goes
    after = (x @ carried[0].T + carried[1]).softmax(-1)  # type: ignore[union-attr]
    torch.testing.assert_close(after[:, [0, -2]], before[:, :2])
    torch.testing.assert_close(after[:, -1] + after[:, 1:-2].sum(1), before[:, 2])
    share = after[:, 1:-2] / before[:, 2:]
    torch.testing.assert_close(share, torch.full_like(share, min(PRIOR, 0.5 / new)))


def detector(recipe: str, names: list[str], seed: int) -> Detector:
    """A detector whose class layers take sixteenths, so that their sums are exact in whatever order they are taken.

    Matrix products of another number of columns are summed in another order; it is not the rows that differ then.
    """
    torch.manual_seed(seed)
    section = {**read_config(recipe).data["model"]["head"], "num_classes": len(names)}
    head = build(HEADS, section, in_channels=WIDTH, strides=(8, 16, 32, 64))
    for name in head.class_layers:
        head.get_submodule(name).register_forward_pre_hook(lambda _, inputs: (sixteenths(inputs[0]),))
    return Detector(nn.Identity(), nn.Identity(), head, class_names=names).eval()


def sixteenths(x: Tensor) -> Tensor:
    return (16 * x).round().clamp(-64, 64) / 16


def moved(recipe: str, names: list[str]) -> tuple[Detector, Detector, LoadReport]:
    old, new = detector(recipe, OLD, 0), detector(recipe, names, 1)
    head: Any = old.head
    for name in head.class_layers:
        for parameter in head.get_submodule(name).parameters():
            parameter.data.copy_(sixteenths(torch.randn(parameter.shape)))
    return old, new, load_detector(new, old.state_dict(), OLD, "old.pt")


def features() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(3)
    return tuple(torch.randn(2, WIDTH, *size, generator=generator) for size in SIZES)


@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("recipe", ONE_STAGE)
def test_one_stage_heads_keep_their_outputs_for_old_classes(recipe: str, names: list[str]) -> None:
    old, new, report = moved(recipe, names)
    levels = features()
    with torch.no_grad():
        before, after = old.head(levels), new.head(levels)
    for was, now in zip(before.logits, after.logits, strict=True):
        was, now = (one.unflatten(1, (-1, count)) for one, count in ((was, len(OLD)), (now, len(names))))
        for number, name in enumerate(names):
            if name in OLD:
                assert torch.equal(now[:, :, number], was[:, :, OLD.index(name)])
            else:
                assert torch.allclose(now[:, :, number].sigmoid(), torch.tensor(0.01), atol=1e-6)
    for was, now in zip(before[1], after[1], strict=True):
        assert torch.equal(was, now), "boxes are not a class's own"
    assert report.new == []
    assert {name.split(".")[1] for name in report.adapted} == {"cls_score"}


def message(model: Detector) -> list[Tensor]:
    """Class logits, deltas and masks of every stage, (R, K...)."""
    head: Any = model.head
    rois = [torch.tensor([[4.0, 4, 40, 40], [0, 0, 90, 60]]), torch.tensor([[10.0, 2, 30, 50]])]
    found: list[Tensor] = []
    with torch.no_grad():
        for branch in head.box if isinstance(head.box, nn.ModuleList) else [head.box]:
            logits, deltas = branch(features(), regions_of(rois))
            found += [logits[:, :-1], deltas]
        masks = getattr(head, "mask", [])
        for branch in masks if isinstance(masks, (list, nn.ModuleList)) else [masks]:
            found.append(branch(features(), regions_of(rois)))
    return found


@pytest.mark.parametrize("names", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("recipe", TWO_STAGE)
def test_two_stage_heads_keep_their_outputs_for_old_classes(recipe: str, names: list[str]) -> None:
    old, new, report = moved(recipe, names)
    outputs = list(zip(message(old), message(new), strict=True))
    assert len(outputs) == {"faster_rcnn_lite0": 2, "mask_rcnn_lite0": 3, "cascade_mask_rcnn_lite0": 9}[recipe]
    for was, now in outputs:
        for number, name in enumerate(names):
            if was.shape[1] == 1:  # serves all classes
                assert torch.equal(was, now)
            elif name in OLD:
                assert torch.equal(now[:, number], was[:, OLD.index(name)])
    assert report.new == []
    assert report.classes == {name: name if name in OLD else None for name in names}


def test_class_agnostic_boxes_are_copied_between_single_classes() -> None:
    section = read_config("faster_rcnn_lite0").data["model"]["head"]
    section.update(num_classes=1, roi={**section["roi"], "class_agnostic": True})
    heads = [build(HEADS, section, in_channels=WIDTH, strides=(8, 16, 32, 64)) for _ in range(2)]
    old, new = (
        Detector(nn.Identity(), nn.Identity(), head, class_names=[n]) for head, n in zip(heads, "ax", strict=True)
    )
    report = load_detector(new, old.state_dict(), ["a"], "old.pt")
    assert torch.equal(heads[1].box.bbox_pred.weight, heads[0].box.bbox_pred.weight)
    assert report.new == ["head.box.cls_score.weight", "head.box.cls_score.bias"]
