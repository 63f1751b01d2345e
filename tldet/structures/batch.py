"""The images of one training step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.text import counted

if TYPE_CHECKING:
    pass


@dataclass(repr=False)
class Batch:
    """Images of one step, padded at the right and at the bottom to one size.

    Attributes:
        images: (B, 3, H, W) RGB, uint8 in 0..255 (or float in the same range).
        sizes: (height, width) of each image inside the padding.
        targets: one an image, in the pixels of ``images``.
        original_sizes: (height, width) of each image as stored, upright; boxes are scaled back to it.
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
        """The dataset's id of each image."""
        return [target.image_id for target in self.targets]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``; copies from pinned memory do not block."""
        targets = [target.to(device, non_blocking=True) for target in self.targets]
        return replace(self, images=self.images.to(device, non_blocking=True), targets=targets)

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory (called by torch's DataLoader)."""
        targets = [target.pin_memory() for target in self.targets]
        return replace(self, images=self.images.pin_memory(), targets=targets)


@dataclass
class LabeledBatch:
    """Whole images with one class each, for classification.

    Attributes:
        images: (B, 3, H, W) RGB, uint8 in 0..255.
        labels: (B,) int64 in 0..K-1.
        image_ids: the name of each image.
        seed: what random draws of this step (mixing) are seeded from; None draws nothing.
    """

    images: Tensor
    labels: Tensor
    image_ids: list[str]
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> LabeledBatch:
        """The same batch on ``device``; copies from pinned memory do not block."""
        images, labels = (x.to(device, non_blocking=True) for x in (self.images, self.labels))
        return replace(self, images=images, labels=labels)

    def pin_memory(self) -> LabeledBatch:
        """The same batch in pinned memory (called by torch's DataLoader)."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())
