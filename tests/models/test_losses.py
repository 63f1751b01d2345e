"""Losses against values worked out by hand and against torchvision's and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from tldet.models.heads.retinanet import focal_loss_sum
from tldet.models.losses import (
    Known,
    class_loss_sum,
    distribution_focal_loss,
    giou_loss,
    paired_iou,
    quality_focal_loss_sum,
)

UNIT = [0.0, 0, 1, 1]


@pytest.mark.parametrize(
    ("box", "other", "iou", "loss"),
    [
        (UNIT, UNIT, 1.0, 0.0),
        (UNIT, [0.0, 0, 2, 1], 0.5, 0.5),  # the hull is the union
        (UNIT, [2.0, 0, 3, 1], 0.0, 1 + 1 / 3),  # apart: a third of the hull is empty
        (UNIT, [1.0, 1, 2, 2], 0.0, 1.5),  # corner to corner
        ([0.5, 0.5, 0.5, 0.5], UNIT, 0.0, 1.0),  # a box without area
        ([0.0, 0, 0, 0], [0.0, 0, 0, 0], 0.0, 1.0),
    ],
)
def test_iou_and_giou(box: list[float], other: list[float], iou: float, loss: float) -> None:
    pair = torch.tensor([box]), torch.tensor([other])
    assert paired_iou(*pair).item() == pytest.approx(iou, abs=1e-6)
    assert giou_loss(*pair).item() == pytest.approx(loss, abs=1e-6)


def test_giou_and_its_gradient_are_torchvision_s() -> None:
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(2, 200, 2, generator=generator) * 50
    boxes = torch.cat([corners, corners + 1 + 40 * torch.rand(2, 200, 2, generator=generator)], -1)
    ours, theirs = boxes[0].clone().requires_grad_(), boxes[0].clone().requires_grad_()
    mine, expected = giou_loss(ours, boxes[1]), generalized_box_iou_loss(theirs, boxes[1])
    torch.testing.assert_close(mine, expected)
    mine.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(paired_iou(boxes[0], boxes[1]), box_iou(boxes[0], boxes[1]).diagonal())


def test_focal_loss_is_torchvision_s() -> None:
    logits = torch.randn(40, 7, generator=torch.Generator().manual_seed(0)) * 4
    rows, labels = torch.tensor([0, 3, 17]), torch.tensor([6, 0, 2])
    truth = torch.zeros(40, 7)
    truth[rows, labels] = 1
    expected = sigmoid_focal_loss(logits, truth, alpha=0.25, gamma=2.0, reduction="sum")
    torch.testing.assert_close(focal_loss_sum(logits, rows, labels, alpha=0.25, gamma=2.0), expected)


def test_quality_focal_loss() -> None:
    logits = torch.tensor([[0.0, 2.0], [-1.0, 0.5]])
    rows, labels, quality = torch.tensor([0]), torch.tensor([1]), torch.tensor([0.7])
    truth = torch.tensor([[0.0, 0.7], [0.0, 0.0]])
    damped = (truth - logits.sigmoid()).abs() ** 2 * F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    found = quality_focal_loss_sum(logits, rows, labels, quality, beta=2.0)
    torch.testing.assert_close(found, damped.sum())
    half = torch.zeros(1, 1)
    one = quality_focal_loss_sum(half, torch.tensor([0]), torch.tensor([0]), torch.tensor([1.0]), beta=2.0)
    assert one.item() == pytest.approx(0.25 * math.log(2))  # |1 - 0.5|^2 * -log 0.5


# Three references of two pictures, two classes, all scores 1/2; the first picture was labelled for class 0 only.
HALF = torch.zeros(3, 2)
SOME = torch.tensor([[True, False], [True, True]])


@pytest.mark.parametrize(
    ("row", "label", "background"),
    [
        (0, 1, 4),  # of 6 entries: not (0, 1), (1, 1); the object's was no background anyway
        (0, 0, 3),
        (2, 1, 3),
    ],
)
def test_focal_losses_without_the_background_of_classes_not_labelled(row: int, label: int, background: int) -> None:
    known = Known(SOME, [2, 1], torch.tensor([row // 2]))
    at = (torch.tensor([row]), torch.tensor([label]))
    focal = focal_loss_sum(HALF, *at, alpha=0.25, gamma=2.0, known=known)
    assert focal.item() == pytest.approx((0.75 * background + 0.25) * 0.25 * math.log(2))
    quality = quality_focal_loss_sum(HALF, *at, torch.tensor([1.0]), beta=2.0, known=known)
    assert quality.item() == pytest.approx((background + 1) * 0.25 * math.log(2))


def test_cross_entropy_of_a_background_that_may_be_a_class_not_labelled() -> None:
    chances = torch.tensor([[0.125, 0.25, 0.5, 0.125]]).expand(4, 4)
    labels = torch.tensor([3, 1, 3, 3])  # background and an object of the class not labelled; another picture's two
    labelled = [torch.tensor([True, False, True]), None, torch.tensor([False, False, False])]
    logits = (chances.log() + 7).requires_grad_()
    loss = class_loss_sum(logits, labels, labelled, [2, 1, 1])
    assert loss.item() == pytest.approx(
        -math.log(0.125 + 0.25) - math.log(0.25) - math.log(0.125) - math.log(1), rel=1e-5
    )
    (gradient,) = torch.autograd.grad(loss, logits)
    expected = [
        [0.125, 0.25 - 2 / 3, 0.5, 0.125 - 1 / 3],
        [0.125, -0.75, 0.5, 0.125],
        [0.125, 0.25, 0.5, -0.875],
        [0] * 4,
    ]
    torch.testing.assert_close(gradient, torch.tensor(expected), atol=1e-6, rtol=1e-5)


def test_cross_entropy_where_all_is_labelled_is_torch_s() -> None:
    logits = torch.randn(9, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 3, 3, 0, 1, 3])
    whole = class_loss_sum(logits, labels, [None, None], [4, 5])
    assert torch.equal(whole, F.cross_entropy(logits, labels, reduction="sum"))
    mixed = class_loss_sum(logits, labels, [None, torch.tensor([True, True, True])], [4, 5])
    torch.testing.assert_close(mixed, whole)


@pytest.mark.parametrize(
    ("distance", "expected"),
    [(1.0, 1.0), (1.25, 0.75 * 1 + 0.25 * 3), (2.5, 0.5 * 3 + 0.5 * 2)],
)
def test_distribution_focal_loss(distance: float, expected: float) -> None:
    negative_logs = torch.tensor([4.0, 1.0, 3.0, 2.0])
    negative_logs = negative_logs + torch.logsumexp(-negative_logs, 0)  # of probabilities that sum to one
    shift = negative_logs[1] - 1.0
    found = distribution_focal_loss(-negative_logs[None], torch.tensor([distance]))
    assert found.item() == pytest.approx(expected + shift.item(), rel=1e-6)
