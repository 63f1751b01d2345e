"""Layers whose rows are classes, carried from one list of classes to another.

How a class starts that the old detector did not have:

- where classes share one softmax with background (``cls_score`` of two-stage heads), its row is that of background, a
  little lower: to the old detector the new objects *were* background. The new classes' probability is taken out of
  background's (Cermelli et al. 2020, Modeling the Background, section 3.3), ``PRIOR`` of it each and at most half for
  all of them; so the old classes keep their logits to the bit and their probabilities up to rounding, everywhere.
  Without a bias (a cosine classifier) nothing can be "a little lower": its row stays the random one of a new head, as
  in Wang et al. 2020, section 3.1.
- where each class has a sigmoid of its own (``cls_score`` of one-stage heads), its weights are zero and its bias is the
  one that a new head starts from: probability 0.01 in every cell (Lin et al. 2017, section 3.3).
- its boxes and masks (``bbox_pred``, ``mask_logits``) are the mean of all old classes': what objects have in common.

None of these rows hides behind another in the forward pass, so equal or zero rows still get gradients of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PRIOR = 0.01  # of a new class among what was background
SCORES = "cls_score"


def carry_rows(
    layer: str,
    old: Tensor,
    new: Tensor,
    old_names: Sequence[str | None],
    new_names: Sequence[str | None],
    *,
    background: bool = False,
    biased: bool = True,
) -> Tensor | None:
    """``new`` with the rows of the classes that both lists name, letter for letter, taken from ``old``.

    Args:
        layer: the layer's name; one that ends in ``bbox_pred`` has four rows for each class, class by class, other
            layers have one for each class, repeated for each anchor of a cell.
        old: (R, ...) weight or (R,) bias.
        new: (S, ...) of the same layer for other classes, as a new head starts.
        old_names: name of each class of ``old``; None where nobody named it.
        new_names: name of each class of ``new`` among the old ones; None for a new class.
        background: whether the layer has a last row for background.
        biased: whether the new layer has a bias.

    Returns:
        (S, ...), new classes' rows as described above; None where nothing can be taken. A layer that has the same rows
        for all classes is ``old``.
    """
    if old.shape[1:] != new.shape[1:]:
        return None
    theirs = _class_rows(layer, len(old), len(old_names), background)
    ours = _class_rows(layer, len(new), len(new_names), background)
    if theirs is None or ours is None or theirs.shape[1] != ours.shape[1]:
        return old if old.shape == new.shape else None
    known = {name: number for number, name in enumerate(old_names) if name is not None}
    pairs = [(known[name], i) for i, name in enumerate(new_names) if name in known]
    if not pairs:
        return None
    mixed = new.clone()
    fresh = [row for row, name in zip(ours, new_names, strict=True) if name not in known]
    if background:
        _from_background(mixed, old[-1], fresh if biased else [])
    elif not layer.endswith(SCORES):
        for row in fresh:
            mixed[row] = old[theirs].mean(0).to(new.dtype)
    elif new.ndim > 1:
        for row in fresh:
            mixed[row] = 0.0  # the bias is a new head's already
    for here, there in pairs:
        mixed[ours[there]] = old[theirs[here]].to(new.dtype)
    return mixed


def _from_background(mixed: Tensor, background: Tensor, fresh: Sequence[Tensor]) -> None:
    """Fill the rows of new classes, and the last one, from the old background's, a row (C,) or a bias ()."""
    share = min(PRIOR, 0.5 / max(len(fresh), 1))
    biased = background.ndim == 0
    for row in fresh:
        mixed[row] = (background + math.log(share) * biased).to(mixed.dtype)
    mixed[-1] = (background + math.log1p(-share * len(fresh)) * biased).to(mixed.dtype)


def _class_rows(layer: str, rows: int, classes: int, background: bool) -> Tensor | None:
    """(K, n) the rows of each class; None where the layer has none of its own for each."""
    if layer.endswith("bbox_pred"):
        return torch.arange(rows).view(classes, 4) if rows == 4 * classes else None
    if background:
        return torch.arange(classes)[:, None] if rows == classes + 1 else None
    return torch.arange(rows).view(-1, classes).T if classes and rows % classes == 0 else None
