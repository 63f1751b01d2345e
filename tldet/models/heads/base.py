"""Base class of detection heads."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tldet.models.boxes import Sizes
from tldet.models.postprocess import DetectionTensors, to_detections
from tldet.runtime.masks import Paste
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
        background_layers: those of them whose last row is the background.
        softmax: the scores are a softmax over the classes and the background, not a sigmoid for each class.
        predicts_masks: the head predicts instance masks, and its loss needs them.
        mask_threshold, mask_paste: see :class:`~tldet.structures.masks.InstanceMasks`.
    """

    class_layers: tuple[str, ...] = ()
    background_layers: tuple[str, ...] = ()
    softmax: bool = False
    predicts_masks: bool = False
    mask_threshold: float = 0.5
    mask_paste: Paste = "sampled"

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
    def decode_tensors(self, raw: Any, sizes: Sizes) -> tuple[Any, ...]:
        """Compute the detections of each image as padded tensors, best first; pure tensor code, for export.

        Args:
            raw: output of ``forward``.
            sizes: (height, width) of each image within the padding: a list, or while a graph is exported a (B, 2) int64
                tensor. :func:`~tldet.models.boxes.clip_batch` takes both.

        Returns:
            :class:`~tldet.models.postprocess.DetectionTensors`, or a tuple like it: boxes (B, N, 4) xyxy in pixels of
            the padded batch, scores (B, N), labels (B, N) int64, the number of valid rows (B,) of each image, and mask
            patches (B, N, S, S) if the head predicts masks.
        """

    @torch.no_grad()
    def decode(self, raw: Any, sizes: Sequence[Size]) -> list[Detections]:
        """Compute the detections of each image in pixels of the padded batch, best first."""
        found = DetectionTensors(*self.decode_tensors(raw, sizes))
        return to_detections(found, sizes, self.mask_threshold, self.mask_paste)
