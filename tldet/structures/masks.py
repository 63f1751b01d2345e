"""Instance masks, stored as small patches on boxes and pasted into the image on demand.

A hundred masks of a 12 megapixel image are 1.2 GB as pixels and 0.3 MB as patches of 28 x 28.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.structures.image import Size

Paste = Literal["sampled", "resized"]


class _Window(NamedTuple):
    """Window of an image that a mask may cover."""

    top: int
    left: int
    inside: Tensor  # (h, w) bool


@dataclass
class InstanceMasks:
    """Masks of one image as probabilities on a grid in each box (He et al. 2017, section 3.1).

    Attributes:
        patches: (N, S, S) float, probability of the object on a grid that spans its box.
        boxes: (N, 4) float32 xyxy in pixels of the image.
        size: (height, width) of the image.
        threshold: smallest probability of pixels of the object.
        paste: "sampled" samples the patch at the pixel centers, with zeros beyond its border (Detectron2, mmdet);
            "resized" pads patch and box by one cell of zeros, rounds the box to whole pixels and resizes the patch to
            it (torchvision). Outlines differ by up to a pixel.
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

    def windows(self) -> Iterator[_Window]:
        """Yield the window of each mask, one at a time to save memory."""
        paste = _sampled if self.paste == "sampled" else _resized
        for patch, box in zip(self.patches.float(), self.boxes.tolist(), strict=True):
            top, left, probability = paste(patch, box, self.size)
            yield _Window(top, left, probability >= self.threshold)

    def dense(self) -> Tensor:
        """Return the masks as (N, H, W) uint8 of 0 and 1."""
        whole = torch.zeros(len(self), *self.size, dtype=torch.uint8, device=self.patches.device)
        for mask, window in zip(whole, self.windows(), strict=True):
            _copy_window(mask, window)
        return whole

    def areas(self) -> Tensor:
        """Return the areas (N,) int64 in pixels."""
        counts = [window.inside.sum() for window in self.windows()]
        return torch.stack(counts) if counts else torch.zeros(0, dtype=torch.int64, device=self.patches.device)

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
    place = (torch.arange(side, device=boxes.device, dtype=torch.float32) + 0.5) / side
    axes = []
    for axis in (0, 1):
        low, high = boxes[:, axis, None], boxes[:, axis + 2, None]
        own, end = masks.boxes[:, axis, None], masks.boxes[:, axis + 2, None]
        axes.append((low + place * (high - low) - own) / (end - own).clamp(min=1e-6) * 2 - 1)  # (N, S), -1..1
    x, y = axes
    grid = torch.stack([x[:, None, :].expand(-1, side, -1), y[:, :, None].expand(-1, -1, side)], -1)
    return F.grid_sample(masks.patches.float()[:, None], grid, align_corners=False)[:, 0]


def windows(masks: Masks) -> Iterator[_Window]:
    """Yield the window of each mask."""
    return (_Window(0, 0, mask.bool()) for mask in masks) if isinstance(masks, Tensor) else masks.windows()


def encode_window(window: _Window, size: Size) -> dict[str, Any]:
    """Encode a window in an image of ``size`` as COCO RLE, with ``counts`` as text for JSON.

    Runs go down the columns; only the positions at which a column of the window changes are needed.
    """
    from pycocotools import mask as coco_mask

    height, pixels = size[0], size[0] * size[1]
    columns = F.pad(window.inside.to(torch.int8).T, (1, 1))  # (w, h + 2)
    column, row = columns.diff(dim=1).nonzero(as_tuple=True)
    changes = (window.left + column) * height + window.top + row
    again = torch.zeros(len(changes) + 1, dtype=torch.bool, device=changes.device)
    again[1:-1] = changes[1:] == changes[:-1]  # a run that continues at the top of the next column
    changes = changes[~(again[1:] | again[:-1]) & (changes < pixels)]
    ends = changes.new_tensor([0]), changes, changes.new_tensor([pixels])
    encoded = coco_mask.frPyObjects({"size": list(size), "counts": torch.cat(ends).diff().tolist()}, *size)
    return {"size": list(size), "counts": encoded["counts"].decode()}


def _copy_window(mask: Tensor, window: _Window) -> Tensor:
    height, width = window.inside.shape
    mask[window.top : window.top + height, window.left : window.left + width] = window.inside.to(mask)
    return mask


def _sampled(patch: Tensor, box: list[float], size: Size) -> tuple[int, int, Tensor]:
    """Return top, left and the probabilities (h, w) around a box, sampled at the pixel centers."""
    rows = _centers(box[1], box[3], size[0], patch)
    columns = _centers(box[0], box[2], size[1], patch)
    y = (rows - box[1]) / max(box[3] - box[1], 1e-6) * 2 - 1  # -1..1 over the box
    x = (columns - box[0]) / max(box[2] - box[0], 1e-6) * 2 - 1
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
    found = F.grid_sample(patch[None, None], grid[None], align_corners=False)[0, 0] if grid.numel() else grid[..., 0]
    return int(max(box[1] // 1 - 1, 0)), int(max(box[0] // 1 - 1, 0)), found


def _centers(low: float, high: float, limit: int, like: Tensor) -> Tensor:
    """Return the centers of the pixels along one axis from ``low`` to ``high``, and one more on each side."""
    first, last = int(max(low // 1 - 1, 0)), int(min(-(-high // 1) + 1, limit))
    return torch.arange(first, max(first, last), device=like.device, dtype=torch.float32) + 0.5


def _resized(patch: Tensor, box: list[float], size: Size) -> tuple[int, int, Tensor]:
    """Return top, left and the probabilities (h, w) of the padded patch, resized to the padded box and clipped."""
    factor = (len(patch) + 2) / len(patch)
    center, half = [(box[i] + box[i + 2]) / 2 for i in (0, 1)], [(box[i + 2] - box[i]) / 2 * factor for i in (0, 1)]
    left, top = (int(c - h) for c, h in zip(center, half, strict=True))  # towards zero, as a cast to int64 does
    right, bottom = (int(c + h) for c, h in zip(center, half, strict=True))
    shape = (max(bottom - top + 1, 1), max(right - left + 1, 1))
    whole = F.interpolate(F.pad(patch, (1, 1, 1, 1))[None, None], shape, mode="bilinear", align_corners=False)[0, 0]
    y, x = max(top, 0), max(left, 0)
    rows, columns = max(min(bottom + 1, size[0]), y) - y, max(min(right + 1, size[1]), x) - x
    return y, x, whole[y - top :, x - left :][:rows, :columns]
