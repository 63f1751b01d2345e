"""Parts of a network put into eval mode while the rest learns."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """A module in eval mode for a while: no dropout is drawn and no statistics are learnt."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        torch.clear_autocast_cache()  # torch up to 2.9 would use weights cast under no_grad again: no gradient


def rest_frozen(module: nn.Module) -> None:
    """Have every part inside ``module`` of which nothing learns run as in evaluation.

    Its norms then keep their statistics and its dropout drops nothing: what the parts above see of it stays the same.
    """
    for part in module.children():
        learning = [parameter.requires_grad for parameter in part.parameters()]
        if learning and not any(learning):
            part.eval()
        else:
            rest_frozen(part)
