"""Penn-Fudan pedestrians: a PNG of instance numbers per image (https://www.cis.upenn.edu/~jshi/ped_html/)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tldet.data.formats.masks import rle_of
from tldet.data.formats.records import Dataset, ImageRecord, Shape
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.tree import Tree
from tldet.errors import DataError

_MASKS, _IMAGES, _SUFFIX, _CLASS = "PedMasks", "PNGImages", "_mask.png", "pedestrian"


def _find(tree: Tree) -> list[Path]:
    """Return the PNG files in ``PedMasks``."""
    found = [] if tree.only is not None else tree.paths
    return [path for path in found if path.parent.name == _MASKS and path.name.endswith(_SUFFIX)]


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read one object per number in a mask; the dataset states no splits.

    Raises:
        DataError: a mask cannot be read.
    """
    found = Dataset("penn_fudan", tree.root, [], [_CLASS])
    for path in files:
        numbers = _pixels(path)
        image = path.parent.parent / _IMAGES / f"{path.name.removesuffix(_SUFFIX)}.png"
        shapes = [
            Shape(_CLASS, f"instance {number}", None, rle=rle_of((numbers == number).astype(np.uint8), str(path)))
            for number in np.unique(numbers[numbers > 0]).tolist()
        ]
        height, width = numbers.shape
        found.images.append(ImageRecord(image, path, "", None, (height, width), shapes))
    return found


def _pixels(path: Path) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as png:
            pixels = np.asarray(png)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: is not a PNG of instance numbers ({error})") from None
    if pixels.ndim != 2 or pixels.dtype != np.uint8:
        raise DataError(f"{path}: must have one channel of instance numbers")
    return pixels


register(Format("penn_fudan", "Penn-Fudan", _find, _read))
