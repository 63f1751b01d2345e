"""Layers whose rows are classes, carried from one list of classes to another by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def carry_rows(
    layer: str, old: Tensor, new: Tensor, old_names: Sequence[str], new_names: Sequence[str]
) -> Tensor | None:
    """``new`` with the rows of the classes that both lists name taken from ``old``.

    Args:
        layer: the layer's name; one that ends in ``bbox_pred`` has four rows for each class, class by class, other
            layers have one for each class, repeated for each anchor of a cell; a row more is background, the last.
        old: (R, ...) weight or bias.
        new: (S, ...) of the same layer for other classes.
        old_names: name of each class of ``old``; letter case does not count.
        new_names: name of each class of ``new``.

    Returns:
        (S, ...); None where nothing can be taken. A layer that has the same rows for all classes is ``old``.
    """
    if old.shape[1:] != new.shape[1:]:
        return None
    theirs, ours = class_rows(layer, len(old), len(old_names)), class_rows(layer, len(new), len(new_names))
    if theirs is None or ours is None or theirs.shape[1] != ours.shape[1]:
        return old if old.shape == new.shape else None
    known = {name.casefold(): number for number, name in enumerate(old_names)}
    pairs = [(known[name.casefold()], i) for i, name in enumerate(new_names) if name.casefold() in known]
    if not pairs:
        return None
    mixed = new.clone()
    for here, there in pairs:
        mixed[ours[there]] = old[theirs[here]].to(new.dtype)
    if len(old) == len(old_names) + 1 and len(new) == len(new_names) + 1:
        mixed[-1] = old[-1].to(new.dtype)
    return mixed


def class_rows(layer: str, rows: int, classes: int) -> Tensor | None:
    """(K, n) the rows of each class; None where the layer has none of its own for each."""
    if layer.endswith("bbox_pred"):
        return torch.arange(rows).view(classes, 4) if rows == 4 * classes else None
    if rows == classes + 1:
        return torch.arange(classes)[:, None]
    return torch.arange(rows).view(-1, classes).T if classes and rows % classes == 0 else None


def common_classes(old_names: Sequence[str], new_names: Sequence[str]) -> list[str]:
    """The names of ``new_names`` that ``old_names`` has too, in any letter case."""
    known = {name.casefold() for name in old_names}
    return [name for name in new_names if name.casefold() in known]
