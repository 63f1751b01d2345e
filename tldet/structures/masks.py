"""Instance masks, stored as small patches on boxes and pasted into the image on demand.

A hundred masks of a 12 megapixel image are 1.2 GB as pixels and 0.3 MB as patches of 28 x 28.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.runtime.masks import MaskWindow, Paste, encode_window, pasted_windows
from tldet.structures.image import Size


@dataclass
class InstanceMasks:
    """Masks of one image as probabilities on a grid in each box (He et al. 2017, section 3.1).

    Attributes:
        patches: (N, S, S) float, probability of the object on a grid that spans its box.
        boxes: (N, 4) float32 xyxy in pixels of the image.
        size: (height, width) of the image.
        threshold: smallest probability of pixels of the object.
        paste: see :func:`~tldet.runtime.masks.pasted_windows`.
    """

    patches: Tensor
    boxes: Tensor
    size: Size
    threshold: float = 0.5
    paste: Paste = "sampled"

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, rows: Tensor | slice) -> InstanceMasks:
        """Select masks by a bool mask, an index tensor or a slice."""
        return replace(self, patches=self.patches[rows], boxes=self.boxes[rows])

    def placed(self, boxes: Tensor, size: Size) -> InstanceMasks:
        """Return the patches on other boxes, in an image of another size."""
        return replace(self, boxes=boxes, size=size)

    def windows(self) -> Iterator[MaskWindow]:
        """Yield the window of each mask, one at a time to save memory."""
        patches = self.patches.detach().float().cpu().numpy()
        return pasted_windows(patches, self.boxes.tolist(), self.size, self.threshold, self.paste)

    def dense(self) -> Tensor:
        """Return the masks as (N, H, W) uint8 of 0 and 1."""
        whole = np.zeros((len(self), *self.size), np.uint8)
        for mask, window in zip(whole, self.windows(), strict=True):
            window.copy_to(mask)
        return torch.from_numpy(whole).to(self.patches.device)

    def areas(self) -> Tensor:
        """Return the areas (N,) int64 in pixels."""
        counts = [int(window.inside.sum()) for window in self.windows()]
        return torch.tensor(counts, dtype=torch.int64, device=self.patches.device)

    def rles(self) -> list[dict[str, Any]]:
        """Return COCO RLEs of the whole image, encoded from the windows."""
        return [encode_window(window, self.size) for window in self.windows()]


Masks: TypeAlias = "Tensor | InstanceMasks"  # a tensor is (N, H, W) uint8 of 0 and 1


def dense(masks: Masks) -> Tensor:
    """Return the masks as (N, H, W) uint8 of 0 and 1."""
    return masks if isinstance(masks, Tensor) else masks.dense()


def tensors(masks: Masks) -> list[Tensor]:
    """Return all tensors of ``masks``."""
    return [masks] if isinstance(masks, Tensor) else [masks.patches, masks.boxes]


def with_tensors(masks: Masks, values: Sequence[Tensor]) -> Masks:
    """Return ``masks`` with other tensors in the order of :func:`tensors`."""
    return values[0] if isinstance(masks, Tensor) else replace(masks, patches=values[0], boxes=values[1])


def rles(masks: Masks) -> list[dict[str, Any]]:
    """Return one COCO RLE per mask, with ``counts`` as text for JSON."""
    if not isinstance(masks, Tensor):
        return masks.rles()
    return [encode_window(window, (masks.shape[1], masks.shape[2])) for window in windows(masks)]


def on_boxes(masks: InstanceMasks, boxes: Tensor) -> Tensor:
    """Resample the patches to grids on other boxes (N, 4), with zeros outside their own box: (N, S, S)."""
    side = masks.patches.shape[-1]
    fraction = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) / side
    axes = []
    for axis in (0, 1):
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        own, end = masks.boxes[:, axis, None], masks.boxes[:, axis + 2, None]
        axes.append((low + fraction * (high - low) - own) / (end - own).clamp(min=1e-6) * 2 - 1)  # (N, S), -1..1
    x, y = axes
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
    return F.grid_sample(masks.patches.float()[:, None], grid, align_corners=False)[:, 0]


def windows(masks: Masks) -> Iterator[MaskWindow]:
    """Yield the window of each mask."""
    if not isinstance(masks, Tensor):
        return masks.windows()
    return (MaskWindow(0, 0, mask.bool().cpu().numpy()) for mask in masks)
