"""Tiled prediction: large images are cut into overlapping tiles, and the detections of the tiles are merged."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tldet.errors import ConfigError
from tldet.inference import OVERLAP
from tldet.inference.tile_merging import TileMerger, Window
from tldet.runtime.images import Reduced
from tldet.structures.detections import Detections
from tldet.structures.image import Size


@dataclass(frozen=True)
class Tiling:
    """Division of images into tiles.

    Attributes:
        size: width and height of a tile in pixels of the original image.
        overlap: minimum overlap of neighboring tiles, as a fraction of ``size``.
        per_class: if True, detections of different classes are never merged.

    Raises:
        ConfigError: a value is out of range.
    """

    size: int
    overlap: float = OVERLAP
    per_class: bool = True

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 <= self.overlap <= 0.5:
            raise ConfigError(
                f"tiles must be at least 1 (pixel) and overlap between 0 and 0.5, not {self.size} and {self.overlap}"
            )

    @property
    def shared(self) -> int:
        """Minimum overlap in pixels."""
        return math.floor(self.size * self.overlap)

    def windows(self, size: Size) -> list[Window]:
        """Return the evenly spaced tiles of an image of (height, width) ``size``, row by row."""
        ys, xs = (self._starts(length) for length in size)
        return [Window(x, y, min(x + self.size, size[1]), min(y + self.size, size[0])) for y in ys for x in xs]

    def _starts(self, length: int) -> list[int]:
        if length <= self.size:
            return [0]
        count = math.ceil((length - self.shared) / (self.size - self.shared))
        return [round(number * (length - self.size) / (count - 1)) for number in range(count)]

    def bounds(self, short: int, long: int) -> Callable[[Size], Size | None]:
        """Return the ``bounds`` for :func:`~tldet.data.images.decode_image`: tiled images are decoded at full size."""
        return lambda size: (short, long) if max(size) <= self.size else None

    def cut(self, image: Reduced) -> tuple[list[Reduced], Tiles | None]:
        """Cut an image into tiles.

        Returns:
            The tiles followed by the whole image, and the :class:`Tiles` that merges their detections; only the image
            and None if it fits into one tile.
        """
        if max(image.whole) <= self.size:
            return [image], None
        windows = self.windows(image.whole)
        views = [Reduced(image.image[w.y0 : w.y1, w.x0 : w.x1]) for w in windows]
        return [*views, image], Tiles(self, tuple(windows), image.whole)


@dataclass(frozen=True)
class Tiles:
    """The tiles of one image.

    Attributes:
        tiling: the division.
        windows: the tiles.
        size: (height, width) of the image.
    """

    tiling: Tiling
    windows: tuple[Window, ...]
    size: Size

    def merge(self, found: Sequence[Detections]) -> Detections:
        """Merge the detections of the tiles and of the whole image.

        Args:
            found: detections of each tile in pixels of the tile, then those of the whole image.

        Returns:
            Detections in pixels of the image, best score first.
        """
        merger = TileMerger(found, self.windows, self.size, shared=self.tiling.shared, per_class=self.tiling.per_class)
        return merger.merged()
