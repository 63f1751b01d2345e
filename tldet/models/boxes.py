"""Box geometry: box coders, clipping, and anchors on the levels of a pyramid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tldet.structures.image import Size
from tldet.system.device import constant, exporting, send
from tldet.text import counted

Sizes = Tensor | Sequence[Size]  # (height, width) of each image; a (B, 2) int64 tensor in an exported graph
_MAX_LOG_SCALE = math.log(1000.0 / 16)  # keeps exp() finite; the constant of Detectron and torchvision
PAIRS_AT_ONCE = 4_000_000  # (box, region) pairs per block: 32 MB per corner
_GRIDS_KEPT = 16  # cached grids; multi-scale training has a few dozen


def center_form(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return centers (..., 2) and sizes (..., 2) of xyxy boxes (..., 4)."""
    extent = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * extent, extent


def corners_of(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy corners of (..., 4) boxes given by center and extent."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], -1)


def area(boxes: Tensor) -> Tensor:
    """Return the areas (...,) of xyxy boxes (..., 4)."""
    return product(boxes[..., 2:] - boxes[..., :2])


def product(sides: Tensor) -> Tensor:
    """Return the products (...,) of pairs (..., 2); unlike ``prod``, its gradient does not make the host wait."""
    return sides[..., 0] * sides[..., 1]


def encode_boxes(boxes: Tensor, references: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Encode boxes as deltas to references (Girshick et al. 2014, appendix C).

    Args:
        boxes: (N, 4) xyxy pixels.
        references: (N, 4) xyxy pixels of positive size: anchors or proposals.
        weights: factors of dx, dy, dw, dh (the inverse of their standard deviations); None for ones.

    Returns:
        (N, 4) float32.
    """
    center, extent = center_form(boxes)
    origin, unit = center_form(references)
    deltas = torch.cat([(center - origin) / unit, torch.log(extent / unit)], dim=-1)
    return deltas if weights is None else deltas * constant(weights, deltas)


def decode_boxes(deltas: Tensor, references: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Decode deltas (..., 4) to xyxy boxes (..., 4) in float32; the inverse of :func:`encode_boxes`."""
    deltas = deltas.float() if weights is None else deltas.float() / constant(weights, deltas)
    origin, unit = center_form(references)
    center = deltas[..., :2] * unit + origin
    half = 0.5 * torch.exp(deltas[..., 2:].clamp(max=_MAX_LOG_SCALE)) * unit
    return torch.cat([center - half, center + half], dim=-1)


def to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """Return the distances (..., 4) in pixels of points (..., 2) to left, top, right and bottom of boxes (..., 4).

    All four are positive for a point inside its box (Tian et al. 2019, equation 1).
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def from_distances(points: Tensor, distances: Tensor) -> Tensor:
    """Return the xyxy boxes (..., 4) of distances; inverse of :func:`to_distances`."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def centerness(distances: Tensor) -> Tensor:
    """Return the centerness (N,) in 0..1 of points in their boxes (Tian et al. 2019, equation 3).

    Args:
        distances: (N, 4) result of :func:`to_distances` for points inside their boxes.
    """
    near = torch.minimum(distances[:, :2], distances[:, 2:])
    far = torch.maximum(distances[:, :2], distances[:, 2:])
    return product(near / far).sqrt()


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Clip boxes (..., 4) to an image of ``size`` (height, width)."""
    height, width = size
    return torch.stack(
        [
            boxes[..., 0].clamp(0, width),
            boxes[..., 1].clamp(0, height),
            boxes[..., 2].clamp(0, width),
            boxes[..., 3].clamp(0, height),
        ],
        dim=-1,
    )


def clip_batch(boxes: Tensor, sizes: Sizes) -> Tensor:
    """Clip boxes (B, ..., 4) to their images."""
    limits = limits_of(sizes, boxes)
    limits = limits.view(limits.shape[0], *[1] * (boxes.ndim - 2), 4)
    return boxes.clamp(min=0).minimum(limits)


def limits_of(sizes: Sizes, like: Tensor) -> Tensor:
    """Return the largest box coordinates of each image, (B, 4) float32: width, height, width, height."""
    if isinstance(sizes, Tensor):
        return sizes.flip(1).repeat(1, 2).to(like)
    limits = [[width, height, width, height] for height, width in sizes]
    return send(torch.tensor(limits, dtype=torch.float32), like.device)


def wide_enough(boxes: Tensor, least: float) -> Tensor:
    """Return (...,) bool: True for boxes whose sides are at least ``least`` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(-1)


def inside_fraction(boxes: Tensor, regions: Tensor) -> Tensor:
    """Return the largest fraction (N,) of each box (N, 4) inside one of the regions (M, 4); 0 without regions."""
    if len(regions) == 0:
        return boxes.new_zeros(len(boxes))
    parts = []
    for some in torch.split(boxes, max(1, PAIRS_AT_ONCE // len(regions))):
        low = torch.maximum(some[:, None, :2], regions[None, :, :2])
        high = torch.minimum(some[:, None, 2:], regions[None, :, 2:])
        shared = product((high - low).clamp(min=0))
        parts.append((shared / area(some).clamp(min=1e-6)[:, None]).amax(1))
    return torch.cat(parts)


def flatten_level(raw: Tensor, channels: int) -> Tensor:
    """Reshape predictions (B, A * C, H, W) to (B, H * W * A, C); a view if ``raw`` is channels_last."""
    batch, _, height, width = raw.shape
    return raw.permute(0, 2, 3, 1).reshape(batch, height * width * (raw.shape[1] // channels), channels)


def flatten_levels(raw: Sequence[Tensor], channels: int) -> Tensor:
    """Concatenate predictions L x (B, A * C, H, W) of all levels to (B, M, C)."""
    return torch.cat([flatten_level(level, channels) for level in raw], 1)


class AnchorGenerator:
    """Generates anchors in each cell (Ren et al. 2015, section 3.1.1).

    Args:
        sizes: square roots of the anchor areas of each level, in pixels.
        ratios: height / width of the anchors on all levels.
        strides: nominal stride of each level, in pixels.
        rounding: round the base anchors to whole pixels, as in torchvision.
        step: distance of cells: "nominal" for the stride, "torchvision" for ``padded size // cells``, which differs on
            the top levels if the padded image is not a multiple of their stride.
        offset: position of anchor centers in a cell, relative to the step: 0 for the top left corner, 0.5 for the
            center.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        *,
        rounding: bool = True,
        step: Literal["nominal", "torchvision"] = "nominal",
        offset: float = 0.0,
    ) -> None:
        if len(sizes) != len(strides):
            raise ValueError(
                f"{counted(len(sizes), 'level')} of anchor sizes for {counted(len(strides), 'level')} of features"
            )
        self.strides = tuple(strides)
        self.step, self.offset = step, offset
        self.per_cell = len(sizes[0]) * len(ratios)
        self.base = [base_anchors(level, ratios, rounding=rounding) for level in sizes]
        self._grids: OrderedDict[tuple[object, ...], list[Tensor]] = OrderedDict()

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors (H * W * A, 4) of each level, ordered by y, x and anchor of the cell."""
        cells = tuple((level.shape[-2], level.shape[-1]) for level in features)
        if exporting():  # sizes may be symbols, and tensors are placeholders
            return self._make(cells, features[0].device)
        key = (cells, features[0].device)
        if key not in self._grids:
            self._grids[key] = self._make(cells, features[0].device)
            while len(self._grids) > _GRIDS_KEPT:
                self._grids.popitem(last=False)
        self._grids.move_to_end(key)
        return self._grids[key]

    def _make(self, cells: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        padded = (cells[0][0] * self.strides[0], cells[0][1] * self.strides[0])
        grids = []
        for base, stride, (rows, columns) in zip(self.base, self.strides, cells, strict=True):
            exact = self.step == "torchvision"
            down, right = (padded[0] // rows, padded[1] // columns) if exact else (stride, stride)
            y, x = ((torch.arange(n) + self.offset) * distance for n, distance in ((rows, down), (columns, right)))
            y, x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            grids.append((shifts + base).reshape(-1, 4).float())
        return [send(grid, device) for grid in grids]


def square_anchors(scale: float, strides: Sequence[int]) -> AnchorGenerator:
    """Create a generator of one square anchor per cell, with sides of ``scale`` strides."""
    return AnchorGenerator([[scale * stride] for stride in strides], [1.0], strides, rounding=False)


def base_anchors(sizes: Sequence[float], ratios: Sequence[float], *, rounding: bool) -> Tensor:
    """Return anchors (R * S, 4) around the origin, grouped by ratio."""
    tall = torch.tensor(ratios, dtype=torch.float32).sqrt()
    scale = torch.tensor(sizes, dtype=torch.float32)
    width = ((1 / tall)[:, None] * scale).flatten()
    height = (tall[:, None] * scale).flatten()
    base = torch.stack([-width, -height, width, height], dim=1) / 2
    return base.round() if rounding else base
