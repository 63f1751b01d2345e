"""Selection of detections from scored boxes.

Shapes: B images, L levels, A references (anchors or cells) per cell, N references of a level, K classes, C box channels
of a reference, n candidates, D detections.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.errors import ConfigError
from tldet.models.boxes import Sizes, clip_batch, flatten_level, wide_enough
from tldet.models.ops.nms import nms_rows
from tldet.runtime.masks import Paste
from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.structures.masks import InstanceMasks
from tldet.system.device import send

Scoring = Literal["product", "root"]


@dataclass(frozen=True)
class SelectSettings:
    """Selection of the detections of a one-stage head.

    Attributes:
        score_thr: a (reference, class) pair is a candidate if its score is above this threshold.
        nms_pre: largest number of candidates per level.
        nms_iou_thr: IoU above which NMS drops the detection with the lower score.
        nms_per_class: compare only boxes of the same class in NMS (True) or boxes of all classes (False).
        max_per_img: largest number of detections of an image.
        drop_empty: drop boxes that lie outside the image (mmdet) or keep them (torchvision).

    Raises:
        ConfigError: a value is out of range.
    """

    score_thr: float = 0.05
    nms_pre: int = 1000
    nms_iou_thr: float = 0.5
    nms_per_class: bool = True
    max_per_img: int = 100
    drop_empty: bool = False

    def __post_init__(self) -> None:
        require_ranges(self, score_thr="[0, 1]", nms_pre="[1, inf]", nms_iou_thr="[0, 1]", max_per_img="[1, inf]")


class NMSSettings(Protocol):
    """Settings of :func:`select`."""

    @property
    def nms_iou_thr(self) -> float:
        """IoU above which the box with the lower score is dropped."""

    @property
    def nms_per_class(self) -> bool:
        """Compare only boxes of the same class (True) or of all classes (False)."""

    @property
    def max_per_img(self) -> int:
        """Largest number of detections."""


class Candidates(NamedTuple):
    """Candidates for detections: n (reference, class) pairs of each image, of one level or of all."""

    boxes: Tensor  # (B, n, 4) xyxy pixels
    scores: Tensor  # (B, n) in 0..1
    labels: Tensor  # (B, n) int64
    good: Tensor  # (B, n) bool, False for pairs that cannot become detections


class DetectionTensors(NamedTuple):
    """Detections of each image, best first, padded with zeros to a common number N."""

    boxes: Tensor  # (B, N, 4) float32 xyxy in pixels of the padded batch
    scores: Tensor  # (B, N) float32
    labels: Tensor  # (B, N) int64
    counts: Tensor  # (B,) int64 number of detections, on the CPU unless a graph is exported
    masks: Tensor | None = None  # (B, N, S, S) float32, see InstanceMasks.patches


class DenseOutputs(NamedTuple):
    """Raw outputs of a one-stage head on one level."""

    logits: Tensor  # (B, A * K, H, W)
    boxes: Tensor  # (B, A * C, H, W)
    centerness: Tensor | None = None  # (B, A, H, W) logits


def dense_detections(
    references: Sequence[Tensor],
    raw: Sequence[Sequence[Tensor]],
    decode: Callable[[Tensor, Tensor, int], Tensor],
    sizes: Sizes,
    settings: SelectSettings,
    num_classes: int,
    scoring: Scoring = "product",
) -> DetectionTensors:
    """Compute the detections of each image from the raw outputs of all levels.

    Args:
        references: L x (N, 4) anchors or cells.
        raw: raw outputs of all levels: logits, boxes and, if the head has it, centerness, each L tensors shaped as in
            :class:`DenseOutputs`.
        decode: computes boxes (B, n, 4) from box outputs (B, n, C), references (B, n, 4) and the index of a level.
        sizes: (height, width) of each image.
        settings: selection of the detections.
        num_classes: K.
        scoring: see :func:`best_scores`.
    """
    levels = []
    for index, (boxes, *outputs) in enumerate(zip(references, *raw, strict=True)):
        level = DenseOutputs(*outputs)
        scores, rows, labels, good = best_scores(level, settings, num_classes, scoring)
        channels = level.boxes.shape[1] * num_classes // level.logits.shape[1]  # C
        chosen = take_rows(flatten_level(level.boxes, channels), rows)
        levels.append(Candidates(decode(chosen, boxes[rows], index), scores, labels, good))
    whole = Candidates(*(torch.cat(part, 1) for part in zip(*levels, strict=True)))
    return select(whole, sizes, settings, torch.finfo(torch.float32).tiny if settings.drop_empty else None)


def best_scores(
    level: DenseOutputs, settings: SelectSettings, num_classes: int, scoring: Scoring
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Select the best n (reference, class) pairs of a level.

    Args:
        level: raw outputs.
        settings: selection of the detections.
        num_classes: K.
        scoring: use of centerness. "product": pairs are selected by class score, which is then multiplied by the
            centerness (mmdet); "root": pairs are selected by the square root of the product (torchvision).

    Returns:
        Scores, references, classes and :attr:`Candidates.good` of the pairs, (B, n) each.
    """
    logits = flatten_level(level.logits, num_classes)  # (B, N, K)
    if level.centerness is not None and scoring == "root":
        centerness = flatten_level(level.centerness, 1).float().sigmoid()  # (B, N, 1)
        scores, rows, labels = best_pairs((logits.float().sigmoid() * centerness).sqrt(), settings.nms_pre)
        return scores, rows, labels, scores > settings.score_thr
    best, rows, labels = best_pairs(logits, settings.nms_pre)
    scores = best.sigmoid()
    good = scores > settings.score_thr
    if level.centerness is not None:
        centerness = take_rows(flatten_level(level.centerness, 1).float(), rows)  # (B, n, 1)
        scores = scores * centerness.squeeze(-1).sigmoid()
    return scores, rows, labels, good


def best_pairs(ranks: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the ranks, references and classes, (B, n) each, of the best (reference, class) pairs by ranks (B, N, K).

    The best n pairs belong to the n references whose best class ranks highest, so only their pairs are sorted.
    """
    _, rows = top_rows(ranks.amax(-1), count)
    best, pairs = top_rows(take_rows(ranks, rows).flatten(1).float(), count)
    classes = ranks.shape[-1]
    return best, rows.gather(1, pairs // classes), pairs % classes


def top_rows(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return values and indices of the best ``count`` scores along the last axis of (..., N), best first."""
    best = torch.topk(scores, min(count, scores.shape[-1]), dim=-1)
    return best.values, best.indices


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """Select the rows (B, n) of values (B, N, C): (B, n, C)."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def select(found: Candidates, sizes: Sizes, settings: NMSSettings, min_bbox_size: float | None) -> DetectionTensors:
    """Clip candidates to their images, apply non-maximum suppression, and keep the best ``max_per_img`` of each image.

    Args:
        found: the candidates.
        sizes: (height, width) of each image.
        settings: see :class:`SelectSettings`.
        min_bbox_size: smallest side of a clipped box in pixels; None keeps boxes of any size.
    """
    boxes, good = clip_batch(found.boxes, sizes), found.good
    if min_bbox_size is not None:
        good = good & wide_enough(boxes, min_bbox_size)
    groups = found.labels if settings.nms_per_class else torch.zeros_like(found.labels)
    rows, counts = nms_rows(boxes, found.scores, groups, good, settings.nms_iou_thr, settings.max_per_img)
    kept = torch.arange(settings.max_per_img, device=boxes.device) < send(counts, boxes.device)[:, None]
    values = (take_rows(boxes, rows), found.scores.gather(1, rows), found.labels.gather(1, rows))
    box, score, label = (value.masked_fill(~kept[..., None] if value.ndim > 2 else ~kept, 0) for value in values)
    return DetectionTensors(box, score, label, counts)


def to_detections(
    found: DetectionTensors, sizes: Sequence[Size], threshold: float = 0.5, paste: Paste = "sampled"
) -> list[Detections]:
    """Convert padded detections.

    Args:
        found: the detections.
        sizes: (height, width) of each image, for masks.
        threshold: see :class:`~tldet.structures.masks.InstanceMasks`.
        paste: see :class:`~tldet.structures.masks.InstanceMasks`.
    """
    results = []
    for row, (size, count) in enumerate(zip(sizes, found.counts.tolist(), strict=True)):
        boxes, scores, labels = (value[row, :count] for value in found[:3])
        patches = None if found.masks is None else found.masks[row, :count]
        masks = None if patches is None else InstanceMasks(patches, boxes.float(), size, threshold, paste)
        results.append(Detections(boxes.float(), scores.float(), labels, masks))
    return results


def set_nms(model: nn.Module, *, per_class: bool) -> None:
    """Set ``nms_per_class`` in every part of a detector that applies NMS.

    Raises:
        ConfigError: the detector applies no NMS.
    """
    parts = [part for part in model.modules() if hasattr(getattr(part, "settings", None), "nms_per_class")]
    if not parts:
        raise ConfigError("--nms-per-class, --nms-agnostic: this model does not apply NMS; leave the option out")
    for part in parts:
        settings: Any = part.settings
        part.settings = replace(settings, nms_per_class=per_class)
