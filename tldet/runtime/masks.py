"""Instance masks predicted on a grid per box: pasting into the image, and COCO RLE.

Letters in shapes: N masks, S side of a patch, H and W sides of the image, h and w sides of a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .image_types import Size

Paste = Literal["sampled", "resized"]
_LONGEST = 7  # characters of a run length in a compressed RLE: 5 bits each, of a difference of 32-bit numbers


class MaskWindow(NamedTuple):
    """Window of an image that a mask may cover."""

    top: int
    left: int
    inside: NDArray[np.bool_]  # (h, w)

    def copy_to(self, mask: NDArray[np.uint8]) -> None:
        """Write the window into a mask (H, W)."""
        height, width = self.inside.shape
        mask[self.top : self.top + height, self.left : self.left + width] = self.inside


@dataclass(frozen=True)
class MaskPatches:
    """Masks of one image as probabilities on a grid in each box (He et al. 2017, section 3.1).

    Attributes:
        patches: (N, S, S) float32, probability of the object on a grid that spans its box.
        boxes: (N, 4) float32 xyxy in pixels of the image.
        size: (height, width) of the image.
        threshold: probability at or above which a pixel belongs to the object.
        paste: see :func:`pasted_windows`.
    """

    patches: NDArray[np.float32]
    boxes: NDArray[np.float32]
    size: Size
    threshold: float = 0.5
    paste: Paste = "sampled"

    def __len__(self) -> int:
        return len(self.patches)

    def __getitem__(self, rows: Any) -> MaskPatches:
        """Select masks by a bool mask, an index array or a slice."""
        return replace(self, patches=self.patches[rows], boxes=self.boxes[rows])

    def windows(self) -> Iterator[MaskWindow]:
        """Yield the window of each mask, one at a time to save memory."""
        return pasted_windows(self.patches, self.boxes.tolist(), self.size, self.threshold, self.paste)

    def dense(self) -> NDArray[np.uint8]:
        """Return the masks as (N, H, W) uint8, 0 or 1."""
        whole = np.zeros((len(self), *self.size), np.uint8)
        for mask, window in zip(whole, self.windows(), strict=True):
            window.copy_to(mask)
        return whole

    def rles(self) -> list[dict[str, Any]]:
        """Return COCO RLEs of the whole image, encoded from the windows."""
        return [encode_window(window, self.size) for window in self.windows()]


def pasted_windows(
    patches: NDArray[np.float32], boxes: Iterable[Sequence[float]], size: Size, threshold: float, paste: Paste
) -> Iterator[MaskWindow]:
    """Yield the window of each mask.

    Args:
        patches: (N, S, S), see :class:`MaskPatches`.
        boxes: xyxy of each mask in pixels.
        size: (height, width) of the image.
        threshold: probability at or above which a pixel belongs to the object.
        paste: "sampled" samples the patch at the pixel centers, with zeros beyond its border (Detectron2, mmdet);
            "resized" pads patch and box by one cell of zeros, rounds the box to whole pixels and resizes the patch to
            it (torchvision). Outlines differ by up to a pixel.
    """
    axis = _sampled_axis if paste == "sampled" else _resized_axis
    for patch, box in zip(np.pad(patches, ((0, 0), (1, 1), (1, 1))), boxes, strict=True):
        cells = len(patch) - 2
        top, *rows = axis(box[1], box[3], size[0], cells)
        left, *columns = axis(box[0], box[2], size[1], cells)
        yield MaskWindow(top, left, _interpolated(patch, rows, columns) >= threshold)


def _interpolated(patch: NDArray[Any], rows: Sequence[Any], columns: Sequence[Any]) -> NDArray[Any]:
    """Interpolate a patch linearly between pairs of rows, and then between pairs of columns.

    ``rows`` and ``columns`` hold the first index, the second index, and the weight of the second one.
    """
    first, second, share = rows
    lines = patch[first] * (1 - share)[:, None] + patch[second] * share[:, None]  # (h, S + 2)
    first, second, share = columns
    weights = np.zeros((len(first), len(patch)), np.float32)
    numbers = np.arange(len(first))
    weights[numbers, first] = 1 - share
    weights[numbers, second] += share
    found: NDArray[Any] = lines @ weights.T
    return found


def _sampled_axis(low: float, high: float, limit: int, cells: int) -> tuple[int, Any, Any, Any]:
    """Return the first pixel, and cells of the padded patch with weights, of the pixels along one axis of a box.

    The pixels are those from ``low`` to ``high``, and one more on each side.
    """
    start, end = int(max(low // 1 - 1, 0)), int(min(-(-high // 1) + 1, limit))
    centers = np.arange(start, max(start, end), dtype=np.float32) + np.float32(0.5)
    position = (centers - np.float32(low)) / np.float32(max(high - low, 1e-6)) * cells + 0.5  # in the padded patch
    position = position.clip(0, cells + 1)
    first = np.minimum(position.astype(np.int64), cells)
    return start, first, first + 1, (position - first).astype(np.float32)


def _resized_axis(low: float, high: float, limit: int, cells: int) -> tuple[int, Any, Any, Any]:
    """Return the same for a padded patch that is resized to the padded box in whole pixels, and clipped."""
    center, half = (low + high) / 2, (high - low) / 2 * (cells + 2) / cells
    start, end = int(center - half), int(center + half)  # towards zero, as a cast to int64 does
    length = max(end - start + 1, 1)
    inside = max(start, 0)
    pixels = np.arange(inside, max(min(end + 1, limit), inside)) - start
    position = ((pixels + np.float32(0.5)) * np.float32((cells + 2) / length) - np.float32(0.5)).clip(0)
    first = np.minimum(position.astype(np.int64), cells + 1)
    return inside, first, np.minimum(first + 1, cells + 1), (position - first).astype(np.float32)


def encode_window(window: MaskWindow, size: Size) -> dict[str, Any]:
    """Encode a window in an image of ``size`` as COCO RLE, with ``counts`` as text for JSON.

    Runs go down the columns; only the positions at which a column of the window changes are needed.
    """
    height, pixels = size[0], size[0] * size[1]
    columns = np.zeros((window.inside.shape[1], window.inside.shape[0] + 2), np.bool_)  # each ends in zeros
    columns[:, 1:-1] = window.inside.T
    flat = columns.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), columns.shape[1])
    changes = (window.left + column) * height + window.top + row
    again = np.zeros(len(changes) + 1, np.bool_)
    again[1:-1] = changes[1:] == changes[:-1]  # a run that continues at the top of the next column
    changes = changes[~(again[1:] | again[:-1]) & (changes < pixels)]
    return {"size": list(size), "counts": compress_runs(np.diff(changes, prepend=0, append=pixels)).decode()}


def compress_runs(runs: NDArray[np.int64]) -> bytes:
    """Encode run lengths as COCO does (``rleToString`` of maskApi.c).

    From the fourth on, the difference to the run before the last one is written. A number has groups of 5 bits, lowest
    first, as characters from 48; bit 6 marks that more follow.
    """
    values = runs.astype(np.int64)
    values[3:] -= runs[1:-2]
    characters = np.zeros((len(values), _LONGEST), np.uint8)  # 0: none
    left = np.ones(len(values), np.bool_)
    for column in range(_LONGEST):
        group, values = values & 0x1F, values >> 5
        more = np.where(group & 0x10, values != -1, values != 0)
        characters[left, column] = (group + 48 + 32 * more)[left]
        left &= more
    return characters[characters > 0].tobytes()
