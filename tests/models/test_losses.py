"""Losses against values worked out by hand and against torchvision's and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss

from tldet.models.losses import (
    class_loss_sum,
    distribution_focal_loss,
    giou_loss,
    paired_iou,
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


def test_giou_and_its_gradient_equal_torchvision() -> None:
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


def test_cross_entropy_of_background_with_unlabeled_classes() -> None:
    chances = torch.tensor([[0.125, 0.25, 0.5, 0.125]]).expand(4, 4)
    labels = torch.tensor([3, 1, 3, 3])  # background and an object of the class not labeled; another image's two
    labeled = [torch.tensor([True, False, True]), None, torch.tensor([False, False, False])]
    logits = (chances.log() + 7).requires_grad_()
    loss = class_loss_sum(logits, labels, labeled, [2, 1, 1])
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


def test_cross_entropy_with_all_classes_labeled_equals_torch() -> None:
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
