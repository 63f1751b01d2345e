"""Layers whose rows are classes, carried from one list of classes to another by name."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def carry_rows(
    layer: str,
    old: Tensor,
    new: Tensor,
    old_names: Sequence[str | None],
    new_names: Sequence[str],
    *,
    background: bool = False,
) -> Tensor | None:
    """``new`` with the rows of the classes that both lists name, letter for letter, taken from ``old``.

    Args:
        layer: the layer's name; one that ends in ``bbox_pred`` has four rows for each class, class by class, other
            layers have one for each class, repeated for each anchor of a cell.
        old: (R, ...) weight or bias.
        new: (S, ...) of the same layer for other classes.
        old_names: name of each class of ``old``; None where nobody named it.
        new_names: name of each class of ``new``.
        background: whether the layer has a last row for background.

    Returns:
        (S, ...); None where nothing can be taken. A layer that has the same rows for all classes is ``old``.
    """
    if old.shape[1:] != new.shape[1:]:
        return None
    theirs = class_rows(layer, len(old), len(old_names), background)
    ours = class_rows(layer, len(new), len(new_names), background)
    if theirs is None or ours is None or theirs.shape[1] != ours.shape[1]:
        return old if old.shape == new.shape else None
    known = {name: number for number, name in enumerate(old_names)}
    pairs = [(known[name], i) for i, name in enumerate(new_names) if name in known]
    if not pairs:
        return None
    mixed = new.clone()
    for here, there in pairs:
        mixed[ours[there]] = old[theirs[here]].to(new.dtype)
    if background:
        mixed[-1] = old[-1].to(new.dtype)
    return mixed


def class_rows(layer: str, rows: int, classes: int, background: bool) -> Tensor | None:
    """(K, n) the rows of each class; None where the layer has none of its own for each."""
    if layer.endswith("bbox_pred"):
        return torch.arange(rows).view(classes, 4) if rows == 4 * classes else None
    if background:
        return torch.arange(classes)[:, None] if rows == classes + 1 else None
    return torch.arange(rows).view(-1, classes).T if classes and rows % classes == 0 else None


def but_for_case(old_names: Sequence[str | None], new_names: Sequence[str]) -> list[str]:
    """The names of ``new_names`` that ``old_names`` has in another letter case only."""
    known = {name.casefold() for name in old_names if name is not None}
    return [name for name in new_names if name not in old_names and name.casefold() in known]
