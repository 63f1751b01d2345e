"""Base class of detection heads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.structures.target import Target


class Head(nn.Module):
    """Base class of detection heads, and the interface that a detector uses.

    A subclass is built with ``in_channels``, ``strides`` (of the feature levels, finest first) and ``num_classes``, and
    defines ``forward``, ``loss`` and ``decode_tensors`` (or ``decode`` itself). A head need not derive from this class:
    any module with ``forward``, ``loss`` and ``decode`` can be registered.

    Attributes:
        class_layers: dotted names of the layers whose output rows belong to classes; their weights are transferred by
            class name.
        background_layers: (optional) those of them whose last row is the background.
        predicts_masks: the head predicts instance masks, and its loss needs them.
    """

    class_layers: tuple[str, ...] = ()
    predicts_masks: bool = False

    @abstractmethod
    def forward(self, features: Sequence[Tensor]) -> Any:
        """Compute the raw outputs, which only ``loss`` and ``decode`` read; pure tensor code.

        A head that needs the ground truth as an input during training (contrastive denoising) takes a second argument
        ``targets: Sequence[Target] | None = None``; one that draws random numbers takes ``seed: int | None = None``.

        Args:
            features: L x (B, in_channels, H, W), finest level first.
        """

    @abstractmethod
    def loss(
        self, raw: Any, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses, named scalars whose sum is minimized; a subclass may leave out ``sizes`` and ``seed``.

        Args:
            raw: output of ``forward``.
            targets: ground truth of each image, in pixels of the padded batch.
            sizes: (height, width) of each image within the padding.
            seed: seed of random draws in this step; None draws nothing at random.
        """

    @abstractmethod
    def decode_tensors(self, raw: Any, sizes: Sequence[Size]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Compute the detections of each image as padded tensors, best first; pure tensor code, for export.

        Args:
            raw: output of ``forward``.
            sizes: (height, width) of each image within the padding.

        Returns:
            boxes (B, N, 4) xyxy in pixels of the padded batch, scores (B, N), labels (B, N) int64, and the number of
            valid rows (B,) of each image.
        """

    @torch.no_grad()
    def decode(self, raw: Any, sizes: Sequence[Size]) -> list[Detections]:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        boxes, scores, labels, counts = self.decode_tensors(raw, sizes)
        rows = zip(boxes, scores, labels, counts.tolist(), strict=True)
        return [Detections(box[:n].float(), score[:n].float(), label[:n]) for box, score, label, n in rows]
