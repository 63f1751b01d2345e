"""Anchor boxes on the levels of a pyramid (Ren et al. 2015, section 3.1.1)."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

GRIDS_KEPT = 16  # multi-scale training meets a few dozen grids; more would only hold memory


class AnchorGenerator:
    """Anchors centred on the top left corner of every cell, sizes and ratios per level.

    Args:
        sizes: for every level the square roots of the anchors' areas, in pixels.
        ratios: height / width, the same on every level.
        strides: nominal stride of every level, in pixels.
        rounding: round the base anchors to whole pixels, as torchvision does.
        step: "nominal" steps by the stride; "torchvision" by ``padded size // cells``, which differs
            on the top levels when the padded picture is no multiple of their stride.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        ratios: Sequence[float],
        strides: Sequence[int],
        *,
        rounding: bool = True,
        step: Literal["nominal", "torchvision"] = "nominal",
    ) -> None:
        if len(sizes) != len(strides):
            raise ValueError(f"{len(sizes)} levels of anchor sizes for {len(strides)} levels of features")
        self.strides = tuple(strides)
        self.step = step
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
            y, x = torch.meshgrid(torch.arange(rows) * down, torch.arange(columns) * right, indexing="ij")
            shifts = torch.stack([x, y, x, y], dim=-1).reshape(-1, 1, 4)
            grids.append((shifts + base).reshape(-1, 4).float().to(device))
        return grids


def base_anchors(sizes: Sequence[float], ratios: Sequence[float], *, rounding: bool) -> Tensor:
    """(R * S, 4) anchors around the origin, ratio by ratio."""
    tall = torch.tensor(ratios, dtype=torch.float32).sqrt()
    scale = torch.tensor(sizes, dtype=torch.float32)
    width = ((1 / tall)[:, None] * scale).flatten()
    height = (tall[:, None] * scale).flatten()
    base = torch.stack([-width, -height, width, height], dim=1) / 2
    return base.round() if rounding else base
