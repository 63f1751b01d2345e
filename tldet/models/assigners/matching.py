"""Which anchor or proposal learns which object, and which of them are drawn for the loss."""

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
_CHUNK = 10_000_000  # pairs of boxes compared at once; torchvision's box_iou takes about 30 bytes for each
Rescue = Literal["none", "own", "object"]


def match(
    references: Tensor,
    boxes: Tensor,
    *,
    pos_iou_thr: float,
    neg_iou_thr: float,
    low_quality: Rescue = "none",
    min_pos_iou: float = 0.0,
) -> Tensor:
    """Match every reference to a ground-truth box (Ren et al. 2015, section 3.1.2).

    Args:
        references: (A, 4) xyxy pixels: anchors or proposals.
        boxes: (G, 4) xyxy pixels; G may be 0, then everything is background.
        pos_iou_thr: overlap at or above which a reference takes its best box.
        neg_iou_thr: overlap below which it is background; between the two it is ignored.
        low_quality: what becomes of the references that overlap a box most (ties included) whatever the overlap, so
            that no object goes without: with "own" they take their own best box (torchvision), with "object" that
            very box, of several the last (mmdet); "none" leaves them.
        min_pos_iou: overlap below which a box is not helped so.

    Returns:
        (A,) int64: index into ``boxes``, BACKGROUND, or IGNORED.
    """
    if len(boxes) == 0 or len(references) == 0:
        return torch.full((len(references),), BACKGROUND, dtype=torch.int64, device=references.device)
    chunks = torch.split(references, max(1, _CHUNK // len(boxes)))
    whole = torchvision.ops.box_iou(boxes, references) if len(chunks) == 1 else None  # else never held at once

    def overlaps(chunk: Tensor) -> Tensor:
        found: Tensor = torchvision.ops.box_iou(boxes, chunk) if whole is None else whole
        return found

    found = [overlaps(chunk).max(dim=0) for chunk in chunks]
    overlap, best = torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])
    matched = best.clone()
    matched[overlap < pos_iou_thr] = IGNORED
    matched[overlap < neg_iou_thr] = BACKGROUND
    if low_quality != "none":
        most = torch.stack([overlaps(chunk).amax(dim=1) for chunk in chunks]).amax(0)
        most[most < min_pos_iou] = torch.inf  # equals no overlap
        rows = len(chunks[0])
        for chunk, part, own in zip(chunks, torch.split(matched, rows), torch.split(best, rows), strict=True):
            top = overlaps(chunk) == most[:, None]  # (G, a)
            helped = top.any(0)
            if low_quality == "object":
                own = len(boxes) - 1 - top.flip(0).byte().argmax(0)  # the last of several
            part.copy_(torch.where(helped, own, part))
    return matched


def assign(
    references: Tensor,
    target: Target,
    *,
    pos_iou_thr: float,
    neg_iou_thr: float,
    low_quality: Rescue = "none",
    min_pos_iou: float = 0.0,
    ignore_iof_thr: float = 0.5,
    spare: float = 0.5,
) -> Tensor:
    """:func:`match` for one image's target, its crowd regions and spared boxes taken care of.

    Args:
        references: (A, 4) xyxy pixels.
        target: (N,) rows; those with ``ignore`` set are never matched.
        pos_iou_thr: see :func:`match`.
        neg_iou_thr: see :func:`match`.
        low_quality: see :func:`match`.
        min_pos_iou: see :func:`match`.
        ignore_iof_thr: a background reference with at least this share of its area in a crowd region is IGNORED.
        spare: a background reference that overlaps a spared box by at least this is IGNORED.

    Returns:
        (A,) int64: row of ``target``, BACKGROUND, or IGNORED.
    """
    rows = target.known.objects
    thresholds = {"pos_iou_thr": pos_iou_thr, "neg_iou_thr": neg_iou_thr, "min_pos_iou": min_pos_iou}
    matched = match(references, target.boxes[rows], low_quality=low_quality, **thresholds)
    matched = spare_crowds(matched, rows, references, target, ignore_iof_thr)
    if target.spared is not None:
        near = match(references, target.spared, pos_iou_thr=spare, neg_iou_thr=spare) >= 0
        matched[(matched == BACKGROUND) & near] = IGNORED
    return matched


def spare_crowds(matched: Tensor, rows: Tensor, references: Tensor, target: Target, ignore_iof_thr: float) -> Tensor:
    """Matches against the rows of a target that are no crowd, made matches against all; may change ``matched``.

    Args:
        matched: (A,) index into ``rows``, BACKGROUND, or IGNORED.
        rows: (G,) rows of ``target`` that are no crowd.
        references: (A, 4) xyxy pixels.
        target: the image's target.
        ignore_iof_thr: a background reference with at least this share of its area in a crowd region is IGNORED.

    Returns:
        (A,) int64: row of ``target``, BACKGROUND, or IGNORED.
    """
    if len(rows) == len(target.boxes):
        return matched
    inside = inside_fraction(references, target.boxes[target.known.crowds]) >= ignore_iof_thr
    matched[(matched == BACKGROUND) & inside] = IGNORED
    others = [rows.new_full((1,), number) for number in (IGNORED, BACKGROUND)]  # -2 and -1: they index from the end
    return torch.cat([rows, *others])[matched]


def generator_for(seed: int | None, image_id: int, stage: int) -> torch.Generator | None:
    """Random numbers that depend on the step's seed, the image and the stage, and on nothing else."""
    if seed is None:
        return None
    mixed = (seed * 0x9E3779B97F4A7C15 + image_id * 0xBF58476D1CE4E5B9 + stage * 0x94D049BB133111EB) % (1 << 63)
    return torch.Generator().manual_seed(mixed ^ (mixed >> 31))


def draw_samples(
    matched: Sequence[Tensor], count: int, pos_fraction: float, generators: Sequence[torch.Generator | None]
) -> list[tuple[Tensor, Tensor]]:
    """Sample positives and background of each image at random (Ren et al. 2015, section 3.1.3).

    Args:
        matched: B x (A,), outputs of :func:`match`.
        count: number of samples per image; fewer if there are not enough.
        pos_fraction: largest fraction of positives.
        generators: one CPU generator per image; with None, all positives and all background are taken.

    Returns:
        For each image the indices of positives (P,) and of background (N,), each in rising order; with a generator
        P + N <= count.
    """
    rows = true_rows([mask for one in matched for mask in (one >= 0, one == BACKGROUND)])
    drawn = []
    for positives, background, generator in zip(rows[::2], rows[1::2], generators, strict=True):
        chosen = _pick(positives, int(count * pos_fraction), generator)
        drawn.append((chosen, _pick(background, count - len(chosen), generator)))
    return drawn


def _pick(rows: Tensor, count: int, generator: torch.Generator | None) -> Tensor:
    if len(rows) <= count or generator is None:
        return rows
    order = torch.randperm(len(rows), generator=generator)[:count].sort().values
    return rows[send(order, rows.device)]


class Learners(NamedTuple):
    """Which references of a batch learn what; P of them hold an object, image by image."""

    counted: Tensor  # (B, M) bool, false for references that are neither object nor background
    image: Tensor  # (P,)
    place: Tensor  # (P,) 0..M-1
    labels: Tensor  # (P,) 0..K-1
    boxes: Tensor  # (P, 4) xyxy pixels
    per_image: Tensor  # (B,) how many there are
    classes: Tensor | None  # (B, K) bool, what each image was labeled for; None for all

    def of(self, values: Tensor) -> Tensor:
        """(B, M, ...) predictions to the (P, ...) float32 of those that hold an object."""
        return values[self.image, self.place].float()


def learners(matched: Sequence[Tensor], targets: Sequence[Target]) -> Learners:
    """The references that learn, from B x (M,) rows of the images' targets, BACKGROUND or IGNORED."""
    found = torch.stack(list(matched))
    counted, positive = found != IGNORED, found >= 0
    image, place = positive.nonzero(as_tuple=True)
    starts = list(accumulate((len(target) for target in targets[:-1]), initial=0))  # of each target's rows among all
    rows = found[image, place] + send(torch.tensor(starts), found.device)[image]
    labels = torch.cat([target.labels for target in targets])[rows]
    boxes = torch.cat([target.boxes for target in targets])[rows]
    return Learners(counted, image, place, labels, boxes, positive.sum(1), _labeled_classes(targets))


def _labeled_classes(targets: Sequence[Target]) -> Tensor | None:
    """(B, K) bool, the classes that the images were labeled for; None where none says."""
    stated = [target.labeled for target in targets]
    some = next((classes for classes in stated if classes is not None), None)
    if some is None:
        return None
    return torch.stack([torch.ones_like(some) if one is None else one for one in stated])
