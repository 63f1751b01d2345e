"""Networks without weights: their shapes, sizes and costs are there at once, whatever they weigh."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

M = TypeVar("M", bound=nn.Module)


class _NoStorage(TorchFunctionMode):
    """Weights are made on the meta device; everything else, which constructors may compute with, is real.

    ``with torch.device("meta")`` would also take the numbers that some constructors (torchvision's RegNet) read back.
    """

    CONSTRUCTORS = (torch.empty, torch.zeros, torch.ones)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in the place of ``func``."""
        given = dict(kwargs or {})
        if func in self.CONSTRUCTORS and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


def hollow(build: Callable[[], M]) -> M:
    """The module that ``build`` makes, on the meta device: weights take no memory and no random numbers."""
    with _NoStorage():
        module = build()
    return module.to("meta")
