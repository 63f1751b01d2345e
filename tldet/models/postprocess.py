"""Selection of detections from scored boxes.

Letters for shapes: B images, L levels, N references (anchors or cells) of a level, A of them per cell, K classes, n
candidates, D rows kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Protocol, cast

import torch
import torchvision
from torch import Tensor, nn

from tldet.config import require_ranges
from tldet.errors import ConfigError
from tldet.models.boxes import Sizes, clip_batch, flatten_level, wide_enough
from tldet.models.ops.graph import GraphOperator
from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.structures.masks import InstanceMasks, Paste
from tldet.system.device import exporting, send, true_rows

Scoring = Literal["product", "root"]
_AT_ONCE = 25_000  # boxes compared in one NMS on an accelerator (torchvision's limit): 80 MB


@dataclass(frozen=True)
class SelectSettings:
    """Selection of the detections among the boxes of a one-stage head.

    Attributes:
        score_thr: a (reference, class) pair must score more than this.
        nms_pre: best pairs of each level that are decoded.
        nms_iou_thr: overlap above which the lesser of two detections of a class is dropped.
        nms_per_class: compare only boxes of the same class in NMS (True) or boxes of all classes (False).
        max_per_img: at most so many detections an image.
        drop_empty: drop boxes of which nothing is left inside the image (mmdet) or keep them (torchvision).

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
    """(reference, class) pairs of each image, n of one level or of all."""

    boxes: Tensor  # (B, n, 4) xyxy pixels
    scores: Tensor  # (B, n) in 0..1
    labels: Tensor  # (B, n) int64
    good: Tensor  # (B, n) bool, those that may become detections


class DetectionTensors(NamedTuple):
    """Detections of each image, best first, with zeros up to a common number N."""

    boxes: Tensor  # (B, N, 4) float32 xyxy in pixels of the padded batch
    scores: Tensor  # (B, N) float32
    labels: Tensor  # (B, N) int64
    counts: Tensor  # (B,) int64 number of detections, on the CPU unless a graph is exported
    masks: Tensor | None = None  # (B, N, S, S) float32, see InstanceMasks.patches


class DenseOutputs(NamedTuple):
    """Raw outputs of a one-stage head at the A references of each cell of one level, N in all."""

    logits: Tensor  # (B, A * K, H, W)
    boxes: Tensor  # (B, A * C, H, W)
    centerness: Tensor | None = None  # (B, A, H, W) logits


def dense_detections(
    references: Sequence[Tensor],
    outputs: Sequence[DenseOutputs],
    decode: Callable[[Tensor, Tensor, int], Tensor],
    sizes: Sizes,
    settings: SelectSettings,
    num_classes: int,
    scoring: Scoring = "product",
) -> DetectionTensors:
    """Compute the detections of each image from the raw outputs of all levels.

    Args:
        references: L x (N, 4) anchors or cells.
        outputs: L raw outputs.
        decode: box outputs (B, n, C), references (B, n, 4) and number of a level to boxes (B, n, 4).
        sizes: (height, width) of each image.
        settings: selection of the detections.
        num_classes: K.
        scoring: see :func:`best_scores`.
    """
    levels = []
    for number, (boxes, level) in enumerate(zip(references, outputs, strict=True)):
        scores, rows, labels, good = best_scores(level, settings, num_classes, scoring)
        channels = level.boxes.shape[1] * num_classes // level.logits.shape[1]  # C
        chosen = take_rows(flatten_level(level.boxes, channels), rows)
        levels.append(Candidates(decode(chosen, boxes[rows], number), scores, labels, good))
    whole = Candidates(*(torch.cat(part, 1) for part in zip(*levels, strict=True)))
    return select(whole, sizes, settings, torch.finfo(torch.float32).tiny if settings.drop_empty else None)


def best_scores(
    level: DenseOutputs, settings: SelectSettings, num_classes: int, scoring: Scoring
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, references, classes and :attr:`Candidates.good` of the best n (reference, class) pairs, (B, n) each.

    Args:
        level: raw outputs.
        settings: selection of the detections.
        num_classes: K.
        scoring: use of centerness. "product": pairs are selected by class score, which is then multiplied by the
            centerness (mmdet); "root": the square root of the product is the score throughout (torchvision).
    """
    logits = flatten_level(level.logits, num_classes)  # (B, N, K)
    if level.centerness is not None and scoring == "root":
        middle = flatten_level(level.centerness, 1).float().sigmoid()  # (B, N, 1)
        scores, rows, labels = best_pairs((logits.float().sigmoid() * middle).sqrt(), settings.nms_pre)
        return scores, rows, labels, scores > settings.score_thr
    best, rows, labels = best_pairs(logits, settings.nms_pre)
    scores = best.sigmoid()
    good = scores > settings.score_thr
    if level.centerness is not None:
        middle = take_rows(flatten_level(level.centerness, 1).float(), rows)
        scores = scores * middle.squeeze(-1).sigmoid()
    return scores, rows, labels, good


def best_pairs(ranks: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best (reference, class) pairs by ranks (B, N, K): their ranks, references and classes, (B, n) each.

    The best n pairs are among the pairs of the n references whose best class ranks highest: only those are sorted.
    """
    _, rows = top_rows(ranks.amax(-1), count)
    best, pairs = top_rows(take_rows(ranks, rows).flatten(1).float(), count)
    classes = ranks.shape[-1]
    return best, rows.gather(1, pairs // classes), pairs % classes


def take_rows(values: Tensor, rows: Tensor) -> Tensor:
    """The (B, n, C) of (B, N, C) values at (B, n) rows."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def select(found: Candidates, sizes: Sizes, settings: NMSSettings, min_size: float | None) -> DetectionTensors:
    """Cut candidates to their images, apply non-maximum suppression, and keep the best ``max_per_img`` of each image.

    Args:
        found: the candidates.
        sizes: (height, width) of each image.
        settings: see :class:`SelectSettings`.
        min_size: least side of a box in pixels, inside the image; None keeps boxes of any size.
    """
    boxes, good = clip_batch(found.boxes, sizes), found.good
    if min_size is not None:
        good = good & wide_enough(boxes, min_size)
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
        found: the detections; without padding, they are valid for all N rows.
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


def nms_rows(
    boxes: Tensor, scores: Tensor, groups: Tensor, good: Tensor, iou: float, keep: int
) -> tuple[Tensor, Tensor]:
    """Apply NMS to each image within each group.

    Args:
        boxes: (B, N, 4) xyxy pixels, none negative.
        scores: (B, N), none negative.
        groups: (B, N) int64; only boxes of the same group are compared.
        good: (B, N) bool; the others are left out.
        iou: IoU above which the box with the lower score is dropped.
        keep: D, largest number of rows of an image.

    Returns:
        Rows (B, D) that are kept, best first and with zeros up to D, and the number of rows (B,) of each image.
    """
    if exporting():
        rows, counts = NMS_ROWS(boxes, scores, groups, good, iou, keep)
        return rows, counts
    return _kept_rows(boxes, scores, groups, good, iou, keep)


def _kept_rows(
    boxes: Tensor, scores: Tensor, groups: Tensor, good: Tensor, iou: float, keep: int
) -> tuple[Tensor, Tensor]:
    rows = torch.zeros(len(boxes), keep, dtype=torch.int64, device=boxes.device)
    counts = []
    for place, own in enumerate(true_rows(list(good))):
        best = own[batched_nms(boxes[place, own], scores[place, own], groups[place, own], iou)[:keep]]
        rows[place, : len(best)] = best
        counts.append(len(best))
    return rows, torch.tensor(counts)


def _outline(boxes: Tensor, *given: Any) -> tuple[Tensor, Tensor]:
    shapes = (boxes.shape[0], given[-1]), (boxes.shape[0],)
    return boxes.new_empty(shapes[0], dtype=torch.int64), boxes.new_empty(shapes[1], dtype=torch.int64)


NMS_ROWS = GraphOperator(
    "nms_rows",
    "(Tensor boxes, Tensor scores, Tensor groups, Tensor good, float iou, SymInt keep) -> (Tensor, Tensor)",
    _kept_rows,
    _outline,
)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, iou: float) -> Tensor:
    """Apply NMS within each group and return the rows that are kept, best first.

    On an accelerator, groups are moved apart as in torchvision, but without its copy of a constant to the device.

    Args:
        boxes: (N, 4) xyxy pixels, none negative.
        scores: (N,).
        groups: (N,) int64; only boxes of the same group are compared.
        iou: IoU above which the box with the lower score is dropped.
    """
    if boxes.device.type == "cpu" or not 0 < len(boxes) <= _AT_ONCE:
        return cast(Tensor, torchvision.ops.batched_nms(boxes, scores, groups, iou))
    apart = groups.to(boxes) * (boxes.max() + 1)
    return cast(Tensor, torchvision.ops.nms(boxes + apart[:, None], scores, iou))


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


def top_rows(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Values and indices of the best ``count`` of ``scores`` (..., N) along the last axis, best first."""
    best = torch.topk(scores, min(count, scores.shape[-1]), dim=-1)
    return best.values, best.indices
