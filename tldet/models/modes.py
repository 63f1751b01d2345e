"""Temporary eval mode."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set a module to eval mode inside the ``with`` block, and restore the modes of all submodules afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
        torch.clear_autocast_cache()  # torch up to 2.9 would use weights cast under no_grad again: no gradient
