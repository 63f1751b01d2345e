"""Classifier weights of a detector for another list of classes.

Weights of classes in both lists are copied. Weights of new classes are initialized as follows:

- Softmax with background (``cls_score`` of two-stage heads): weights of background with a lower bias, because the
  objects of a new class were background for the old detector. The probability of new classes is taken from that of
  background (Cermelli et al. 2020, Modeling the Background, section 3.3): ``PRIOR`` of it for each class, at most half
  for all of them. Logits of old classes are unchanged, their probabilities up to rounding. Without a bias (cosine
  classifier), the random weights of a new head are kept, as in Wang et al. 2020, section 3.1.
- Sigmoid for each class (``cls_score`` of one-stage heads): zero weights and the bias of a new head, which predicts
  probability 0.01 at every location (Lin et al. 2017, section 3.3).
- Boxes and masks (``bbox_pred``, ``mask_logits``): mean over all old classes.

Equal or zero weights of several classes still receive different gradients, because no hidden layer follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

PRIOR = 0.01  # probability of a new class, relative to background
SCORES = "cls_score"


def copy_classes(
    layer: str,
    old: Tensor,
    new: Tensor,
    old_names: Sequence[str | None],
    new_names: Sequence[str | None],
    *,
    background: bool = False,
    biased: bool = True,
) -> Tensor | None:
    """Copy the weights of classes in both lists from ``old`` to a copy of ``new``; initialize those of new classes.

    Args:
        layer: name of the layer. A layer that ends in ``bbox_pred`` has four consecutive rows per class, other layers
            have one row per class, repeated for each anchor.
        old: (R, ...) weight or (R,) bias.
        new: (S, ...) initial values of the same layer in a new head.
        old_names: name of each class of ``old``; None for a class without a name.
        new_names: for each class of ``new``, its name among the old ones; None for a new class.
        background: the last row of the layer is background.
        biased: the new layer has a bias.

    Returns:
        (S, ...); None if no row can be copied. A layer without rows per class is returned as ``old``.
    """
    if old.shape[1:] != new.shape[1:]:
        return None
    sources = _class_rows(layer, len(old), len(old_names), background)
    targets = _class_rows(layer, len(new), len(new_names), background)
    if sources is None or targets is None or sources.shape[1] != targets.shape[1]:
        return old if old.shape == new.shape else None
    known = {name: number for number, name in enumerate(old_names) if name is not None}
    pairs = [(known[name], i) for i, name in enumerate(new_names) if name in known]
    if not pairs:
        return None
    mixed = new.clone()
    fresh = [row for row, name in zip(targets, new_names, strict=True) if name not in known]
    if background:
        _from_background(mixed, old[-1], fresh if biased else [])
    else:
        _initialize(mixed, layer, old[sources].mean(0), fresh)
    for source, target in pairs:
        mixed[targets[target]] = old[sources[source]].to(new.dtype)
    return mixed


def _initialize(mixed: Tensor, layer: str, mean: Tensor, fresh: Sequence[Tensor]) -> None:
    """Fill the rows of new classes in a layer without background; ``mean`` is that of all old classes."""
    is_score = layer.endswith(SCORES)
    if is_score and mixed.ndim == 1:
        return  # the bias is that of a new head
    for row in fresh:
        mixed[row] = 0.0 if is_score else mean.to(mixed.dtype)


def _from_background(mixed: Tensor, background: Tensor, fresh: Sequence[Tensor]) -> None:
    """Fill the rows of new classes and of background from the old background, a row (C,) or a bias ()."""
    share = min(PRIOR, 0.5 / max(len(fresh), 1))
    biased = background.ndim == 0
    for row in fresh:
        mixed[row] = (background + math.log(share) * biased).to(mixed.dtype)
    mixed[-1] = (background + math.log1p(-share * len(fresh)) * biased).to(mixed.dtype)


def _class_rows(layer: str, rows: int, classes: int, background: bool) -> Tensor | None:
    """Return the rows (K, n) of each class; None if the layer has no rows per class."""
    if layer.endswith("bbox_pred"):
        return torch.arange(rows).view(classes, 4) if rows == 4 * classes else None
    if background:
        return torch.arange(classes)[:, None] if rows == classes + 1 else None
    return torch.arange(rows).view(-1, classes).T if classes and rows % classes == 0 else None
