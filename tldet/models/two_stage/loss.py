"""Losses of two-stage detectors: proposals, sampled regions, and the losses of box branches on them.

On an image that is not annotated for every class, background may be an object of another class: confident detections of
the other classes are ignored, not background, in both stages.

Shapes: B images, L levels, R regions of all images, r regions of an image, P positive regions of an image, K classes,
C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tldet.models.assigners.matching import assign_targets, draw_samples, generator_for
from tldet.models.boxes import encode_boxes
from tldet.models.losses import class_loss_sum
from tldet.models.modes import evaluating
from tldet.models.pooling import PaddedBoxes, regions_of
from tldet.models.postprocess import DetectionTensors
from tldet.models.two_stage.box import BoxBranch, RoISettings, detect_in_regions, select_classes
from tldet.models.two_stage.rpn import RPN, RPNRaw
from tldet.structures.image import Size
from tldet.structures.target import Target

STAGE = 2  # distinguishes the random numbers of the first box branch from those of the RPN


class TwoStageRaw(NamedTuple):
    """Raw outputs of the first stage, and the features that the later stages pool from."""

    rpn: RPNRaw
    features: tuple[Tensor, ...]  # L x (B, C, H, W) float32, pooled levels only


class SampledRegions(NamedTuple):
    """Regions of an image that are sampled for the loss, the P positive ones first."""

    rois: Tensor  # (r, 4)
    labels: Tensor  # (r,) 0..K-1, K for background
    deltas: Tensor  # (P, 4) target deltas of the positives
    objects: Tensor  # (P,) row of the target that each positive is assigned to
    is_truth: Tensor  # (r,) bool: the region is a ground-truth box
    annotated: Tensor | None  # (K,) bool, classes that are annotated on the image; None if all are


class Proposed(NamedTuple):
    """Result of the first stage in training."""

    proposals: list[Tensor]  # B x (r, 4), best first
    targets: list[Target]  # with spared boxes
    losses: dict[str, Tensor]


class StageLoss(NamedTuple):
    """Losses of a box branch, with the regions and deltas that they are computed from."""

    losses: dict[str, Tensor]
    regions: list[SampledRegions]
    deltas: Tensor  # (R, K, 4) or (R, 1, 4)


def two_stage_loss(
    rpn: RPN, box: BoxBranch, raw: TwoStageRaw, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None
) -> StageLoss:
    """Compute the losses of an RPN and of one box branch.

    Args:
        rpn: first stage.
        box: second stage.
        raw: raw outputs.
        targets: ground truth of each image.
        sizes: (height, width) of each image.
        seed: seed of random samples; None takes all anchors and regions.
    """
    detect = partial(detect_in_regions, box, raw.features, sizes=sizes)
    first = rpn_loss(rpn, raw, targets, sizes, seed, detect=detect, branches=box, settings=box.settings)
    second = stage_loss(box, raw.features, first.proposals, first.targets, seed, STAGE)
    return second._replace(losses={**first.losses, **second.losses})


def rpn_loss(
    rpn: RPN,
    raw: TwoStageRaw,
    targets: Sequence[Target],
    sizes: Sequence[Size],
    seed: int | None,
    *,
    detect: Callable[[PaddedBoxes], DetectionTensors],
    branches: nn.Module,
    settings: RoISettings,
) -> Proposed:
    """Compute the proposals and losses of an RPN.

    Args:
        rpn: first stage.
        raw: raw outputs.
        targets: ground truth of each image.
        sizes: (height, width) of each image.
        seed: seed of random samples; None takes all anchors.
        detect: see :func:`add_spared`.
        branches: see :func:`add_spared`.
        settings: see :func:`add_spared`.
    """
    proposals = rpn.propose(raw.rpn, sizes, training=True).split()
    targets = add_spared(detect, branches, proposals, targets, settings)
    return Proposed(proposals, targets, rpn.loss(raw.rpn, targets, sizes, seed))


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
        seed: seed of random samples; None takes all regions.
        stage: distinguishes the random samples of different stages.
    """
    regions = sample_regions(proposals, targets, box.settings, box.num_classes, seed, stage)
    logits, deltas = box(features, regions_of([one.rois for one in regions]))
    return StageLoss(region_losses(logits, deltas, regions, box), regions, deltas)


@torch.no_grad()
def add_spared(
    detect: Callable[[PaddedBoxes], DetectionTensors],
    branches: nn.Module,
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    s: RoISettings,
) -> list[Target]:
    """Add the detector's own confident detections of classes that are not annotated on an image to ``target.spared``.

    Anchors and regions at these boxes are not background. Nothing is computed if all images are annotated for every
    class.

    Args:
        detect: computes the detections in regions.
        branches: layers that ``detect`` runs; they are in eval mode meanwhile.
        proposals: B x (r, 4), best first.
        targets: ground truth of each image.
        s: settings of the second stage.
    """
    partial_targets = [target.partial for target in targets]
    if not any(partial_targets):
        return list(targets)
    with evaluating(branches):
        pairs = zip(proposals, partial_targets, strict=True)
        found = detect(PaddedBoxes.of([boxes[: s.spare_among if one else 0] for boxes, one in pairs]))
    rows = zip(targets, found.boxes, found.scores, found.labels, found.counts.tolist(), strict=True)
    return [_spare(target, b[:n], k[:n], c[:n], s.spare_score) for target, b, k, c, n in rows]


def _spare(target: Target, boxes: Tensor, scores: Tensor, labels: Tensor, score_thr: float) -> Target:
    if target.labeled is None:
        return target
    boxes = boxes[(scores >= score_thr) & ~target.labeled[labels]]
    return replace(target, spared=boxes if target.spared is None else torch.cat([target.spared, boxes]))


@torch.no_grad()
def sample_regions(
    proposals: Sequence[Tensor],
    targets: Sequence[Target],
    settings: RoISettings,
    num_classes: int,
    seed: int | None,
    stage: int,
) -> list[SampledRegions]:
    """Sample regions of each image from the proposals and the ground-truth boxes.

    Args:
        proposals: B x (r, 4).
        targets: ground truth of each image.
        settings: settings of the second stage.
        num_classes: K.
        seed: seed of random samples; None takes all regions.
        stage: distinguishes the random samples of different stages.
    """
    s, regions = settings, list[SampledRegions]()
    matched = [
        torch.cat([_assign(boxes, target, s), target.known.objects])  # a ground-truth box is matched to its own object
        for boxes, target in zip(proposals, targets, strict=True)
    ]
    generators = [generator_for(seed, target.image_id, stage) for target in targets]
    samples = draw_samples(matched, s.num_samples, s.pos_fraction, generators)
    for boxes, target, own, (positive, background) in zip(proposals, targets, matched, samples, strict=True):
        rois = torch.cat([boxes, target.boxes[target.known.objects]])
        rows, objects = torch.cat([positive, background]), own[positive]
        labels = torch.full_like(rows, num_classes)
        labels[: len(positive)] = target.labels[objects]
        deltas = encode_boxes(target.boxes[objects], rois[positive], s.weights)
        annotated = target.labeled if target.partial else None
        regions.append(SampledRegions(rois[rows], labels, deltas, objects, rows >= len(boxes), annotated))
    return regions


def _assign(boxes: Tensor, target: Target, s: RoISettings) -> Tensor:
    thresholds = dict.fromkeys(("pos_iou_thr", "neg_iou_thr", "min_pos_iou"), s.pos_iou_thr)
    thresholds |= {"ignore_iof_thr": s.ignore_iof_thr, "spare": s.spare}
    return assign_targets(boxes, target, low_quality=s.low_quality, **thresholds)


def region_losses(
    logits: Tensor, deltas: Tensor, regions: Sequence[SampledRegions], branch: BoxBranch
) -> dict[str, Tensor]:
    """Compute cross entropy of all regions and smooth L1 loss of the positive ones, divided by the number of regions.

    The cross entropy is that of :func:`~tldet.models.losses.class_loss_sum`.

    Args:
        logits: (R, K + 1).
        deltas: (R, K, 4) or (R, 1, 4).
        regions: sampled regions of each image.
        branch: the branch with its settings and normalizers.
    """
    labels, expected = torch.cat([one.labels for one in regions]), torch.cat([one.deltas for one in regions])
    counts = [len(one.rois) for one in regions]
    first = accumulate(counts, initial=0)
    spans = [(start, start + len(one.objects)) for start, one in zip(first, regions, strict=False)]
    rows = torch.cat([torch.arange(*span, device=labels.device) for span in spans])  # of the positives
    count = branch.normalizers.divisor("regions", len(labels), len(regions))
    predicted = select_classes(deltas, rows, labels[rows])
    box = F.smooth_l1_loss(predicted, expected, beta=branch.settings.beta, reduction="sum")
    classes = class_loss_sum(logits, labels, [one.annotated for one in regions], counts)
    return {"loss_cls": classes / count, "loss_bbox": box / count}
