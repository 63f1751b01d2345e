"""Losses against values worked out by hand and against torchvision's and torch's own."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from tldet.models.heads.retinanet import focal_loss_sum
from tldet.models.losses import distribution_focal_loss, giou_loss, paired_iou, quality_focal_loss_sum

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
