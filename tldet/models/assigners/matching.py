"""Assignment of anchors, locations and proposals to ground-truth boxes, and sampling of them for the loss.

Shapes: B images, A references of an image (anchors, locations or proposals), G ground-truth boxes, K classes,
P positive references of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
import torchvision
from torch import Tensor

from tldet.models.boxes import inside_fraction
from tldet.structures.target import Target
from tldet.system.device import send, true_rows

BACKGROUND = -1
IGNORED = -2
_CHUNK = 10_000_000  # pairs of boxes per block; torchvision's box_iou takes about 30 bytes for each
LowQuality = Literal["none", "own", "object"]


def match_by_iou(
    references: Tensor,
    boxes: Tensor,
    *,
    pos_iou_thr: float,
    neg_iou_thr: float,
    low_quality: LowQuality = "none",
    min_pos_iou: float = 0.0,
) -> Tensor:
    """Match each reference to a ground-truth box by IoU (Ren et al. 2015, section 3.1.2).

    Args:
        references: (A, 4) xyxy pixels.
        boxes: (G, 4) xyxy pixels; G may be 0, in which case every reference is background.
        pos_iou_thr: IoU at or above which a reference is assigned to its best box.
        neg_iou_thr: IoU below which a reference is background; between the two thresholds it is ignored.
        low_quality: assignment of the references with the highest IoU to a box (ties included) if that IoU is below
            ``pos_iou_thr``, so that every box has a positive. "own": to their own best box (torchvision), "object": to
            that box, or the last of several (mmdet), "none": such references are not assigned.
        min_pos_iou: lowest IoU for an assignment by ``low_quality``.

    Returns:
        (A,) int64: index into ``boxes``, BACKGROUND, or IGNORED.
    """
    if len(boxes) == 0 or len(references) == 0:
        return torch.full((len(references),), BACKGROUND, dtype=torch.int64, device=references.device)
    chunks = torch.split(references, max(1, _CHUNK // len(boxes)))
    whole = torchvision.ops.box_iou(boxes, references) if len(chunks) == 1 else None  # else computed twice, in blocks

    def overlaps(chunk: Tensor) -> Tensor:
        found: Tensor = torchvision.ops.box_iou(boxes, chunk) if whole is None else whole
        return found

    found = [overlaps(chunk).max(dim=0) for chunk in chunks]
    overlap, best = torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
    matched = best.clone()
    matched[overlap < pos_iou_thr] = IGNORED
    matched[overlap < neg_iou_thr] = BACKGROUND
    if low_quality != "none":
        highest = torch.stack([overlaps(chunk).amax(dim=1) for chunk in chunks]).amax(0)
        highest[highest < min_pos_iou] = torch.inf  # equals no IoU
        size = len(chunks[0])
        for chunk, part, own in zip(chunks, torch.split(matched, size), torch.split(best, size), strict=True):
            top = overlaps(chunk) == highest[:, None]  # (G, a)
            if low_quality == "object":
                own = len(boxes) - 1 - top.flip(0).byte().argmax(0)  # the last of several boxes
            part.copy_(torch.where(top.any(0), own, part))
    return matched


def assign_targets(
    references: Tensor,
    target: Target,
    *,
    pos_iou_thr: float,
    neg_iou_thr: float,
    low_quality: LowQuality = "none",
    min_pos_iou: float = 0.0,
    ignore_iof_thr: float = 0.5,
    spare: float = 0.5,
) -> Tensor:
    """Match references to the objects of an image; background in crowd regions and at spared boxes is ignored.

    Args:
        references: (A, 4) xyxy pixels.
        target: ground truth of the image; rows with ``ignore`` set are never matched.
        pos_iou_thr: see :func:`match_by_iou`.
        neg_iou_thr: see :func:`match_by_iou`.
        low_quality: see :func:`match_by_iou`.
        min_pos_iou: see :func:`match_by_iou`.
        ignore_iof_thr: see :func:`ignore_crowds`.
        spare: IoU with a spared box (``target.spared``) at or above which background is IGNORED.

    Returns:
        (A,) int64: row of ``target``, BACKGROUND, or IGNORED.
    """
    rows = target.known.objects
    thresholds = {"pos_iou_thr": pos_iou_thr, "neg_iou_thr": neg_iou_thr, "min_pos_iou": min_pos_iou}
    matched = match_by_iou(references, target.boxes[rows], low_quality=low_quality, **thresholds)
    matched = ignore_crowds(matched, rows, references, target, ignore_iof_thr=ignore_iof_thr)
    if target.spared is not None:
        near = match_by_iou(references, target.spared, pos_iou_thr=spare, neg_iou_thr=spare) >= 0
        matched[(matched == BACKGROUND) & near] = IGNORED
    return matched


def ignore_crowds(
    matched: Tensor, rows: Tensor, references: Tensor, target: Target, *, ignore_iof_thr: float
) -> Tensor:
    """Ignore background in crowd regions, and convert indices of objects to rows of the target.

    Args:
        matched: (A,) index into ``rows``, BACKGROUND, or IGNORED; may be modified.
        rows: (G,) rows of ``target`` that are objects.
        references: (A, 4) xyxy pixels.
        target: ground truth of the image.
        ignore_iof_thr: fraction of a reference's area inside a crowd region at or above which background is IGNORED.

    Returns:
        (A,) int64: row of ``target``, BACKGROUND, or IGNORED.
    """
    if len(rows) == len(target.boxes):
        return matched
    inside = inside_fraction(references, target.boxes[target.known.crowds]) >= ignore_iof_thr
    matched[(matched == BACKGROUND) & inside] = IGNORED
    others = [rows.new_full((1,), number) for number in (IGNORED, BACKGROUND)]  # -2 and -1 index from the end
    return torch.cat([rows, *others])[matched]


def generator_for(seed: int | None, image_id: int, stage: int) -> torch.Generator | None:
    """Create a random generator from the seed of the step, the image and the stage only; None if there is no seed."""
    if seed is None:
        return None
    mixed = (seed * 0x9E3779B97F4A7C15 + image_id * 0xBF58476D1CE4E5B9 + stage * 0x94D049BB133111EB) % (1 << 63)
    return torch.Generator().manual_seed(mixed ^ (mixed >> 31))


def draw_samples(
    matched: Sequence[Tensor], count: int, pos_fraction: float, generators: Sequence[torch.Generator | None]
) -> list[tuple[Tensor, Tensor]]:
    """Sample positives and background of each image at random (Ren et al. 2015, section 3.1.3).

    Args:
        matched: B x (A,), outputs of :func:`assign_targets`.
        count: number of samples per image; fewer if there are not enough.
        pos_fraction: largest fraction of positives.
        generators: one CPU generator per image; with None, all positives and all background are taken.

    Returns:
        For each image the indices of positives (P,) and of background (N,), each in rising order; with a generator
        P + N <= count.
    """
    rows = true_rows([mask for one in matched for mask in (one >= 0, one == BACKGROUND)])
    sampled = []
    for positives, background, generator in zip(rows[::2], rows[1::2], generators, strict=True):
        chosen = _pick(positives, int(count * pos_fraction), generator)
        sampled.append((chosen, _pick(background, count - len(chosen), generator)))
    return sampled


def _pick(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(rows) <= count or generator is None:
        return rows
    order = torch.randperm(len(rows), generator=generator)[:count].sort().values
    return rows[send(order, rows.device)]


class Positives(NamedTuple):
    """Positive references of a batch with the objects that they are assigned to, image by image."""

    valid: Tensor  # (B, A) bool, False for ignored references
    image: Tensor  # (P,) index of the image
    reference: Tensor  # (P,) index of the reference
    labels: Tensor  # (P,) 0..K-1
    boxes: Tensor  # (P, 4) xyxy pixels
    per_image: Tensor  # (B,) number of positives
    annotated: Tensor | None  # (B, K) bool, classes that are annotated on each image; None if all are

    def select(self, values: Tensor) -> Tensor:
        """Return the (P, ...) float32 predictions at the positives, from (B, A, ...)."""
        return values[self.image, self.reference].float()

    def batch_divisor(self) -> Tensor:
        """Return the divisor of MMDetection's losses, a scalar: number of positives, at least one for each image."""
        return self.per_image.clamp(min=1).sum()


def gather_positives(matched: Sequence[Tensor], targets: Sequence[Target]) -> Positives:
    """Gather the positives of a batch.

    Args:
        matched: B x (A,) row of the target of the image, BACKGROUND, or IGNORED.
        targets: ground truth of each image.
    """
    rows = torch.stack(list(matched))
    valid, positive = rows != IGNORED, rows >= 0
    image, reference = positive.nonzero(as_tuple=True)
    first = list(accumulate((len(target) for target in targets[:-1]), initial=0))  # row of each target among all
    joined = rows[image, reference] + send(torch.tensor(first), rows.device)[image]
    labels = torch.cat([target.labels for target in targets])[joined]
    boxes = torch.cat([target.boxes for target in targets])[joined]
    return Positives(valid, image, reference, labels, boxes, positive.sum(1), _annotated(targets))


def _annotated(targets: Sequence[Target]) -> Tensor | None:
    """Return (B, K) bool, the classes that are annotated on each image; None if no target lists them."""
    given = [target.labeled for target in targets]
    some = next((classes for classes in given if classes is not None), None)
    if some is None:
        return None
    return torch.stack([torch.ones_like(some) if one is None else one for one in given])
