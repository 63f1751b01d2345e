"""Box geometry: coding boxes against references and points, clipping, and anchors on the levels of a pyramid."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from tldet.system.device import constant, send

MAX_LOG_SCALE = math.log(1000.0 / 16)  # keeps exp() finite; the constant of Detectron and torchvision
PAIRS_AT_ONCE = 4_000_000  # (box, region) pairs looked at at once: 32 MB a corner
GRIDS_KEPT = 16  # multi-scale training meets a few dozen grids; more would only hold memory


def center_form(boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Centers (..., 2) and extents (..., 2) of xyxy boxes (..., 4)."""
    extent = boxes[..., 2:] - boxes[..., :2]
    return boxes[..., :2] + 0.5 * extent, extent


def corners_of(boxes: Tensor) -> Tensor:
    """(..., 4) xyxy corners of (..., 4) boxes given by center and extent."""
    center, half = boxes[..., :2], boxes[..., 2:] / 2
    return torch.cat([center - half, center + half], -1)


def area(boxes: Tensor) -> Tensor:
    """(...,) areas of xyxy boxes (..., 4)."""
    return product(boxes[..., 2:] - boxes[..., :2])


def product(sides: Tensor) -> Tensor:
    """(...,) products of the two numbers of (..., 2); unlike that of ``prod``, the gradient makes no host wait."""
    return sides[..., 0] * sides[..., 1]


def encode_boxes(boxes: Tensor, references: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Deltas that carry ``references`` to ``boxes`` (Girshick et al. 2014, appendix C).

    Args:
        boxes: (N, 4) xyxy pixels.
        references: (N, 4) xyxy pixels with a positive extent: anchors or proposals.
        weights: four factors of dx, dy, dw, dh (the inverse of their standard deviations); None for ones.

    Returns:
        (N, 4) float32.
    """
    center, extent = center_form(boxes)
    origin, unit = center_form(references)
    deltas = torch.cat([(center - origin) / unit, torch.log(extent / unit)], dim=-1)
    return deltas if weights is None else deltas * constant(weights, deltas)


def decode_boxes(deltas: Tensor, references: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """The inverse of :func:`encode_boxes`; (..., 4) deltas and references give (..., 4) xyxy boxes in float32."""
    deltas = deltas.float() if weights is None else deltas.float() / constant(weights, deltas)
    origin, unit = center_form(references)
    center = deltas[..., :2] * unit + origin
    half = 0.5 * torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * unit
    return torch.cat([center - half, center + half], dim=-1)


def to_distances(points: Tensor, boxes: Tensor) -> Tensor:
    """(..., 4) distances in pixels from points (..., 2) to the left, top, right and bottom sides of boxes (..., 4).

    All four are positive where the point lies inside its box (Tian et al. 2019, equation 1).
    """
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], dim=-1)


def from_distances(points: Tensor, distances: Tensor) -> Tensor:
    """The inverse of :func:`to_distances`: (..., 4) xyxy boxes."""
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], dim=-1)


def centerness(distances: Tensor) -> Tensor:
    """(N,) in 0..1: how near to the middle of its box a point lies (Tian et al. 2019, equation 3).

    Args:
        distances: (N, 4) as :func:`to_distances` gives them, of points inside their boxes.
    """
    near = torch.minimum(distances[:, :2], distances[:, 2:])
    far = torch.maximum(distances[:, :2], distances[:, 2:])
    return product(near / far).sqrt()


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes (..., 4) cut to an image of ``size`` (height, width)."""
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


def wide_enough(boxes: Tensor, least: float) -> Tensor:
    """(...,) bool: both sides of the box are at least ``least`` pixels."""
    return ((boxes[..., 2:] - boxes[..., :2]) >= least).all(-1)


def inside_fraction(boxes: Tensor, regions: Tensor) -> Tensor:
    """(N,) the largest share of each box (N, 4) that lies in one of the regions (M, 4); 0 where M is 0."""
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
    """(B, A * C, H, W) predictions as (B, H * W * A, C); a view when ``raw`` is channels_last."""
    batch, _, height, width = raw.shape
    return raw.permute(0, 2, 3, 1).reshape(batch, height * width * (raw.shape[1] // channels), channels)


def flatten_levels(raw: Sequence[Tensor], channels: int) -> Tensor:
    """L x (B, A * C, H, W) predictions as one (B, M, C), level after level."""
    return torch.cat([flatten_level(level, channels) for level in raw], 1)


class AnchorGenerator:
    """Anchors in every cell (Ren et al. 2015, section 3.1.1).

    Args:
        sizes: for every level the square roots of the anchors' areas, in pixels.
        ratios: height / width, the same on every level.
        strides: nominal stride of every level, in pixels.
        rounding: round the base anchors to whole pixels, as torchvision does.
        step: "nominal" steps by the stride; "torchvision" by ``padded size // cells``, which differs
            on the top levels when the padded image is no multiple of their stride.
        offset: where in its cell an anchor is centered, as a share of the step: 0 the top left corner, 0.5 the middle.
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
            raise ValueError(f"{len(sizes)} levels of anchor sizes for {len(strides)} levels of features")
        self.strides = tuple(strides)
        self.step, self.offset = step, offset
        self.per_cell = len(sizes[0]) * len(ratios)
        self.base = [base_anchors(level, ratios, rounding=rounding) for level in sizes]
        self._grids: OrderedDict[tuple[object, ...], list[Tensor]] = OrderedDict()

    def __call__(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Anchors (H * W * A, 4) of every level; rows run over y, x, then the cell's own anchors."""
        cells = tuple((level.shape[-2], level.shape[-1]) for level in features)
        key = (cells, features[0].device)
        if key not in self._grids:
            self._grids[key] = self._make(cells, features[0].device)
            while len(self._grids) > GRIDS_KEPT:
                self._grids.popitem(last=False)
        self._grids.move_to_end(key)
        return self._grids[key]

    def _make(self, cells: Sequence[tuple[int, int]], device: torch.device) -> list[Tensor]:
        padded = (cells[0][0] * self.strides[0], cells[0][1] * self.strides[0])
        grids = []
        for base, stride, (rows, columns) in zip(self.base, self.strides, cells, strict=True):
            exact = self.step == "torchvision"
            down, right = (padded[0] // rows, padded[1] // columns) if exact else (stride, stride)
            y, x = ((torch.arange(n) + self.offset) * pace for n, pace in ((rows, down), (columns, right)))
            y, x = torch.meshgrid(y, x, indexing="ij")
            shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            grids.append((shifts + base).reshape(-1, 4).float())
        return [send(grid, device) for grid in grids]


def base_anchors(sizes: Sequence[float], ratios: Sequence[float], *, rounding: bool) -> Tensor:
    """(R * S, 4) anchors around the origin, ratio by ratio."""
    tall = torch.tensor(ratios, dtype=torch.float32).sqrt()
    scale = torch.tensor(sizes, dtype=torch.float32)
    width = ((1 / tall)[:, None] * scale).flatten()
    height = (tall[:, None] * scale).flatten()
    base = torch.stack([-width, -height, width, height], dim=1) / 2
    return base.round() if rounding else base
