"""Batches of images with their targets or labels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.text import counted


@dataclass(repr=False)
class Batch:
    """Images of one step, padded at the right and bottom to one size.

    Attributes:
        images: (B, 3, H, W) RGB, uint8 in 0..255 (or float in the same range).
        sizes: (height, width) of each image inside the padding.
        targets: one per image, in pixels of ``images``.
        original_sizes: (height, width) of each image file, upright; detections are scaled to it.
        seed: seed of the step; with the image id it determines the sampled anchors and RoIs of an image.
    """

    images: Tensor
    sizes: list[Size]
    targets: list[Target]
    original_sizes: list[Size]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        objects = sum(len(target) for target in self.targets)
        height, width = self.images.shape[-2:]
        return f"Batch({counted(len(self), 'image')} of {height}x{width}, {counted(objects, 'object')})"

    @property
    def image_ids(self) -> list[int]:
        """Id of each image in its dataset."""
        return [target.image_id for target in self.targets]

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on ``device``; copies from pinned memory do not block."""
        targets = [target.to(device, non_blocking=True) for target in self.targets]
        return replace(self, images=self.images.to(device, non_blocking=True), targets=targets)

    def pin_memory(self) -> Batch:
        """Return the batch in pinned memory (called by torch's DataLoader)."""
        targets = [target.pin_memory() for target in self.targets]
        return replace(self, images=self.images.pin_memory(), targets=targets)


@dataclass
class LabeledBatch:
    """Images with one class each, for classification.

    Attributes:
        images: (B, 3, H, W) RGB, uint8 in 0..255.
        labels: (B,) int64 in 0..K-1.
        image_ids: name of each image.
        seed: seed of random draws in this step (mixing); None draws nothing.
    """

    images: Tensor
    labels: Tensor
    image_ids: list[str]
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> LabeledBatch:
        """Return the batch on ``device``; copies from pinned memory do not block."""
        images, labels = (x.to(device, non_blocking=True) for x in (self.images, self.labels))
        return replace(self, images=images, labels=labels)

    def pin_memory(self) -> LabeledBatch:
        """Return the batch in pinned memory (called by torch's DataLoader)."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())
