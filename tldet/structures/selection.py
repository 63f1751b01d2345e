"""Selecting rows of detections and joining detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.structures import masks as instance_masks
from tldet.structures.masks import InstanceMasks, Masks
from tldet.text import counted

Rows: TypeAlias = Tensor | slice | int | Sequence[int] | Sequence[bool] | NDArray[Any]


def as_index(rows: Rows, count: int) -> Tensor | slice:
    """Return rows as an index tensor or a slice.

    Args:
        rows: a bool mask, indices (negative ones count from the end), one index, or a slice.
        count: number of rows there are.

    Raises:
        IndexError: an index is out of range, or a mask has another length.
        TypeError: the rows have another type.
    """
    if isinstance(rows, slice):
        return rows
    index = rows if isinstance(rows, Tensor) else _tensor(rows)
    if index.dtype == torch.bool:
        if index.shape != (count,):
            raise IndexError(f"a bool mask must be ({count},), one value per detection, not {tuple(index.shape)}")
        return index.nonzero().flatten()  # once, not for every field
    if index.is_floating_point() or index.ndim > 1:
        raise TypeError(f"indices must be whole numbers in one dimension, not {index.dtype} {tuple(index.shape)}")
    index = index.reshape(-1).long()
    if index.device.type == "cpu" and index.numel() and not -count <= int(index.min()) <= int(index.max()) < count:
        given = f"indices {int(index.min())} to {int(index.max())}"
        raise IndexError(f"index out of range: {counted(count, 'detection')}, {given}")
    return index


def _tensor(rows: Any) -> Tensor:
    if isinstance(rows, str) or not isinstance(rows, (int, Sequence, np.ndarray, np.generic)):
        raise TypeError(f"detections are selected by a bool mask, indices or a slice, not {type(rows).__name__}")
    array = np.asarray(rows)
    return torch.from_numpy(array if array.size else array.astype(np.int64))


def labels_of(classes: Sequence[int | str] | int | str, class_names: Sequence[str]) -> list[int]:
    """Return the labels of classes, which are labels or names.

    Raises:
        ValueError: a name is unknown.
    """
    chosen = [classes] if isinstance(classes, (int, str)) else list(classes)
    unknown = [name for name in chosen if isinstance(name, str) and name not in class_names]
    if unknown:
        known = ", ".join(class_names) if class_names else "no class names are known: use labels"
        raise ValueError(f"no class is called {unknown[0]!r}; {known}")
    return [list(class_names).index(one) if isinstance(one, str) else int(one) for one in chosen]


def join_masks(masks: Sequence[Masks | None]) -> Masks | None:
    """Join the masks of detections on one image.

    Raises:
        ValueError: some detections have masks and others do not, or the masks are of images of different sizes.
    """
    present = [one for one in masks if one is not None]
    if len(present) != len(masks):
        if present:
            raise ValueError("some detections have masks and others do not")
        return None
    first, patches = present[0], [one for one in present if isinstance(one, InstanceMasks)]
    alike = {(one.size, one.threshold, one.paste, one.patches.shape[1:]) for one in patches}
    if isinstance(first, InstanceMasks) and len(patches) == len(present) and len(alike) == 1:
        rows = [torch.cat([getattr(one, name) for one in patches]) for name in ("patches", "boxes")]
        return InstanceMasks(rows[0], rows[1], first.size, first.threshold, first.paste)
    dense = [instance_masks.dense(one) for one in present]
    if len({tuple(one.shape[1:]) for one in dense}) > 1:
        raise ValueError(f"masks are of images of different sizes: {', '.join(str(tuple(d.shape[1:])) for d in dense)}")
    return torch.cat(dense)
