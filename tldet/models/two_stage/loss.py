"""Losses of two-stage detectors: sampled regions, and the losses of the box branches on them.

On an image that is not annotated for every class, background may be one of the other classes, and confident detections
of these are no background in either stage.

Letters for shapes: B images, R regions of all images, r regions of one, P of them positive, K classes, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.models.assigners.matching import assign, draw_samples, generator_for
from tldet.models.boxes import encode_boxes
from tldet.models.losses import class_loss_sum
from tldet.models.modes import evaluating
from tldet.models.pooling import PaddedBoxes, regions_of
from tldet.models.postprocess import DetectionTensors
from tldet.models.two_stage.box import BoxBranch, RoISettings, of_class
from tldet.models.two_stage.rpn import RPN, RPNRaw
from tldet.structures.image import Size
from tldet.structures.target import Target

STAGE = 2  # distinguishes the random draws of the first box branch from those of the RPN


class TwoStageRaw(NamedTuple):
    """The first stage's outputs and the features that the later stages pool from."""

    rpn: RPNRaw
    features: tuple[Tensor, ...]  # one (B, C, H, W) float32 a pooled level


class Drawn(NamedTuple):
    """The regions of one image that the loss sees, the P positive ones first."""

    rois: Tensor  # (r, 4)
    labels: Tensor  # (r,) 0..K-1, K for background
    deltas: Tensor  # (P, 4) what the positives' boxes have to learn
    objects: Tensor  # (P,) row of the target that each positive learns
    truths: Tensor  # (r,) bool: the region is a ground-truth box
    labeled: Tensor | None  # (K,) bool: what the image was labeled for; None for every class


def propose_and_loss(
    rpn: RPN,
    raw: TwoStageRaw,
    targets: Sequence[Target],
    sizes: Sequence[Size],
    seed: int | None,
    *,
    find: Callable[[PaddedBoxes], DetectionTensors],
    branches: nn.Module,
    settings: RoISettings,
) -> tuple[list[Tensor], list[Target], dict[str, Tensor]]:
    """Compute the proposals of each image, its target with spared boxes, and the losses of the RPN.

    Args:
        rpn: the first stage.
        raw: raw outputs.
        targets: ground truth of each image.
        sizes: (height, width) of each image.
        seed: seed of random draws; None draws nothing at random.
        find: see :func:`with_spared`.
        branches: see :func:`with_spared`.
        settings: see :func:`with_spared`.
    """
    proposals = rpn.propose(raw.rpn, sizes, training=True).split()
    targets = with_spared(find, branches, proposals, targets, settings)
    return proposals, targets, rpn.loss(raw.rpn, targets, sizes, seed)


class StageLoss(NamedTuple):
    """Losses of one box branch, and what they were computed from."""

    losses: dict[str, Tensor]
    drawn: list[Drawn]
    deltas: Tensor  # (R, K, 4) or (R, 1, 4)


def stage_loss(
    box: BoxBranch,
    features: Sequence[Tensor],
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    seed: int | None,
    stage: int,
) -> StageLoss:
    """Sample regions, run a box branch on them, and compute its losses.

    Args:
        box: the branch.
        features: L x (B, C, H, W).
        proposals: B x (r, 4).
        targets: ground truth of each image.
        seed: seed of random draws; None draws nothing at random.
        stage: distinguishes the random draws of different stages.
    """
    drawn = draw_regions(proposals, targets, box.settings, box.num_classes, seed, stage)
    logits, deltas = box(features, regions_of([d.rois for d in drawn]))
    return StageLoss(box_losses(logits, deltas, drawn, box), drawn, deltas)


@torch.no_grad()
def with_spared(
    find: Callable[[PaddedBoxes], DetectionTensors],
    branches: nn.Module,
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    s: RoISettings,
) -> list[Target]:
    """The targets, with what the detector now takes for objects of classes that an image was not labeled for.

    Such places are no background to learn (see ``spared`` of :class:`~tldet.structures.target.Target`). Nothing is
    computed where every image was labeled for every class.

    Args:
        find: regions to the detections of each image.
        branches: the layers it runs, put into eval mode meanwhile.
        proposals: B x (r, 4), best first.
        targets: of the images.
        s: the second stage's settings.
    """
    some = [target.partial for target in targets]
    if not any(some):
        return list(targets)
    with evaluating(branches):
        pairs = zip(proposals, some, strict=True)
        found = find(PaddedBoxes.of([boxes[: s.spare_among if one else 0] for boxes, one in pairs]))
    rows = zip(targets, found.boxes, found.scores, found.labels, found.counts.tolist(), strict=True)
    return [_spare(target, b[:n], k[:n], c[:n], s.spare_score) for target, b, k, c, n in rows]


def _spare(target: Target, boxes: Tensor, scores: Tensor, labels: Tensor, least: float) -> Target:
    if target.labeled is None:
        return target
    boxes = boxes[(scores >= least) & ~target.labeled[labels]]
    return replace(target, spared=boxes if target.spared is None else torch.cat([target.spared, boxes]))


@torch.no_grad()
def draw_regions(
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    settings: RoISettings,
    num_classes: int,
    seed: int | None,
    stage: int,
) -> list[Drawn]:
    """Sample the regions of each image for the loss. Ground-truth boxes join the proposals, each for its own object."""
    s, drawn = settings, list[Drawn]()
    limits = {
        "pos_iou_thr": s.pos_iou_thr,
        "neg_iou_thr": s.pos_iou_thr,
        "min_pos_iou": s.pos_iou_thr,
        "ignore_iof_thr": s.ignore_iof_thr,
        "spare": s.spare,
    }
    matched = [
        torch.cat([assign(boxes, target, low_quality=s.low_quality, **limits), target.known.objects])
        for boxes, target in zip(proposals, targets, strict=True)
    ]
    generators = [generator_for(seed, target.image_id, stage) for target in targets]
    sampled = draw_samples(matched, s.num_samples, s.pos_fraction, generators)
    for boxes, target, own, (positive, background) in zip(proposals, targets, matched, sampled, strict=True):
        rois = torch.cat([boxes, target.boxes[target.known.objects]])
        rows, objects = torch.cat([positive, background]), own[positive]
        labels = torch.full_like(rows, num_classes)
        labels[: len(positive)] = target.labels[objects]
        deltas = encode_boxes(target.boxes[objects], rois[positive], s.weights)
        labeled = target.labeled if target.partial else None
        drawn.append(Drawn(rois[rows], labels, deltas, objects, rows >= len(boxes), labeled))
    return drawn


def box_losses(logits: Tensor, deltas: Tensor, drawn: Sequence[Drawn], branch: BoxBranch) -> dict[str, Tensor]:
    """Cross entropy of all regions and smooth L1 of the positive ones, both divided by the number of all.

    The first is that of :func:`~tldet.models.losses.class_loss_sum`.

    Args:
        logits: (R, K + 1).
        deltas: (R, K, 4) or (R, 1, 4).
        drawn: what the regions learn.
        branch: the branch with its settings and normalizers.
    """
    labels, wanted = torch.cat([d.labels for d in drawn]), torch.cat([d.deltas for d in drawn])
    starts = accumulate((len(d.rois) for d in drawn), initial=0)
    spans = [(start, start + len(d.objects)) for start, d in zip(starts, drawn, strict=False)]
    rows = torch.cat([torch.arange(*span, device=labels.device) for span in spans])
    count = branch.normalizers.divisor("regions", len(labels), len(drawn))
    box = F.smooth_l1_loss(of_class(deltas, rows, labels[rows]), wanted, beta=branch.settings.beta, reduction="sum")
    classes = class_loss_sum(logits, labels, [d.labeled for d in drawn], [len(d.rois) for d in drawn])
    return {"loss_cls": classes / count, "loss_bbox": box / count}
