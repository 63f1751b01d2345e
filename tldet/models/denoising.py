"""Contrastive denoising queries (Li et al. 2022, DN-DETR; Zhang et al. 2023, DINO, section 3.3).

In training, noisy copies of the objects are additional queries of the decoder. From a positive query, the decoder must
recover the object; a negative query, which is shifted further, must be classified as background. The copies form groups
that do not attend to each other.

Letters for shapes: B images, D denoising queries, Q other queries, K classes, G objects in the image with the most
objects. Boxes are (center x, center y, width, height), normalized by the image size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tldet.models.assigners.hungarian import NONE, PaddedTargets
from tldet.models.boxes import corners_of
from tldet.system.device import send

_EPS = 1e-5  # smallest normalized side and center coordinate of a box


class Noise(NamedTuple):
    """Random numbers of the denoising queries."""

    flip: Tensor  # (B, D) in 0..1
    labels: Tensor  # (B, D) classes
    sign: Tensor  # (B, D, 4) -1 or 1
    size: Tensor  # (B, D, 4) in 0..1


class Denoising(NamedTuple):
    """Denoising queries of a batch, padded to D per image."""

    labels: Tensor  # (B, D) noisy class, K for padding
    boxes: Tensor  # (B, D, 4) noisy box
    assigned: Tensor  # (B, D) index of the object of a positive, or NONE
    counted: Tensor  # (B, D) bool, False for padding
    groups: Tensor  # (B,) number of groups; a group has one positive and one negative per object
    block: Tensor  # (B, D) group of each query

    def mask(self, queries: int) -> Tensor:
        """Return the attention mask (B, 1, D + Q, D + Q) bool, True if a query may attend to another.

        Denoising queries attend to their own group and to the Q other queries.
        """
        batch, noisy = self.block.shape
        mask = torch.ones(batch, noisy + queries, noisy + queries, dtype=torch.bool, device=self.block.device)
        mask[:, :noisy, :noisy] = self.block[:, :, None] == self.block[:, None]
        mask[:, noisy:, :noisy] = False
        return mask[:, None]


def denoising_queries(
    objects: PaddedTargets,
    num_classes: int,
    generators: Sequence[torch.Generator | None],
    *,
    count: int,
    label_noise: float,
    box_noise: float,
    same_groups: bool = False,
) -> Denoising | None:
    """Make noisy copies of the objects.

    Args:
        objects: the ground truth.
        num_classes: K.
        generators: random generator of each image; None uses torch's global random state.
        count: maximum number of positives per image. If an image has more objects, a random selection is copied, to
            limit the cost of attention.
        label_noise: half of this fraction of the queries gets a random class.
        box_noise: largest shift of a side, relative to half the box size; negatives shift by one to two times that.
        same_groups: give all images the number of groups that fits the image with the most objects, at least one, so
            that the queries of an image depend on its batch (the authors).

    Returns:
        The queries; None if no image has objects.
    """
    most = max(objects.counts)
    if not most:
        return None
    slots = _slots(objects.counts, count, same_groups, objects.boxes.device)
    real, negative = slots.real, slots.negative
    number = slots.number if same_groups else _chosen(objects, count, generators).gather(1, slots.number)
    labels = torch.where(real, objects.labels.gather(1, number), num_classes)
    boxes = objects.boxes.gather(1, number[..., None].expand(-1, -1, 4)) * real[..., None]
    noise = _draw(slots.counted, num_classes, generators, boxes.dtype)
    labels = torch.where((noise.flip < label_noise * 0.5) & real, noise.labels, labels)
    shift = (noise.size + negative[..., None]) * noise.sign * boxes[..., 2:].repeat(1, 1, 2) / 2 * box_noise
    moved = (corners_of(boxes) + shift).clamp(0, 1)
    noisy = torch.cat([(moved[..., :2] + moved[..., 2:]) / 2, moved[..., 2:] - moved[..., :2]], -1)
    assigned = torch.where(real & ~negative, number, NONE)
    return Denoising(labels, noisy.clamp(_EPS, 1 - _EPS), assigned, slots.counted, slots.groups, slots.block)


class _Slots(NamedTuple):
    """Layout of the denoising queries; all tensors except ``groups`` are (B, D)."""

    number: Tensor  # index of the object among the selected ones, 0..G-1
    real: Tensor  # bool, True if this object exists
    negative: Tensor  # bool
    counted: Tensor  # bool, False for padding
    block: Tensor  # group of each query
    groups: Tensor  # (B,) number of groups


def _chosen(objects: PaddedTargets, count: int, generators: Sequence[torch.Generator | None]) -> Tensor:
    """Return the order (B, G) of the objects of each image; a random selection leads if they exceed ``count``."""
    most = objects.boxes.shape[1]
    rows = [
        torch.cat([torch.randperm(n, generator=generator), torch.arange(n, most)]) if n > count else torch.arange(most)
        for n, generator in zip(objects.counts, generators, strict=True)
    ]
    return send(torch.stack(rows), objects.boxes.device)


def _slots(counts: Sequence[int], count: int, same_groups: bool, device: torch.device) -> _Slots:
    """Lay out the queries: group by group, first the positives of a group, then its negatives."""
    widths = [max(counts)] * len(counts) if same_groups else [min(n, count) for n in counts]
    copies = [max(1, count // n) if n else 0 for n in widths]
    total = max(2 * n * g for n, g in zip(widths, copies, strict=True))
    width, groups, there = (send(torch.tensor(one), device)[:, None] for one in (widths, copies, counts))
    slot, width = torch.arange(total, device=device), width.clamp(min=1)
    within = slot % (2 * width)
    number, counted = within % width, slot < 2 * width * groups
    real = counted & (number < there)
    return _Slots(number, real, within >= width, counted, slot // (2 * width), groups[:, 0])


def _draw(counted: Tensor, num_classes: int, generators: Sequence[torch.Generator | None], dtype: torch.dtype) -> Noise:
    """Draw the noise of (B, D) queries; with a generator, the noise of an image does not depend on its batch."""
    if any(one is None for one in generators):
        flip = torch.rand(counted.shape, dtype=torch.float32, device=counted.device)
        labels = torch.randint_like(flip, 0, num_classes, dtype=torch.int32).long()
        sign = torch.randint_like(flip[..., None].expand(-1, -1, 4), 0, 2, dtype=dtype) * 2.0 - 1.0
        return Noise(flip, labels, sign, torch.rand_like(sign))
    total, drawn = counted.shape[1], []
    for used, generator in zip(counted.sum(1).tolist(), generators, strict=True):
        rows = torch.rand(used, 10, generator=generator)
        drawn.append(torch.cat([rows, rows.new_zeros(total - used, 10)]))
    numbers = send(torch.stack(drawn), counted.device)
    labels = (numbers[..., 1] * num_classes).long().clamp(max=num_classes - 1)
    return Noise(numbers[..., 0], labels, (numbers[..., 2:6] >= 0.5) * 2.0 - 1.0, numbers[..., 6:])
