"""Torchvision without torch's compiler.

``torchvision.ops.roi_align`` imports ``torch._dynamo`` for one question, which it asks in deterministic runs on a GPU
only; with it come sympy, triton and torch's compiler: three seconds and 140 MB at the start of every process. Here the
question imports them when it is asked. Every module of tldet takes torchvision from here. timm imports the compiler by
itself, and so does an optimizer.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

NAME = "torch._dynamo.utils"


class _StandIn(ModuleType):
    """Knows the question; whoever wants more of the module gets the real one."""

    def is_compile_supported(self, device: str) -> Any:
        """Ask the real module."""
        return self.real().is_compile_supported(device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.real(), name)

    def real(self) -> Any:
        """The module this one stands for, in its place from now on."""
        self.leave()
        return import_module(NAME)

    def leave(self) -> None:
        """Be imported by no one any more."""
        if sys.modules.get(NAME) is self:
            del sys.modules[NAME]


def _without_compiler() -> Any:
    if "torchvision" in sys.modules or NAME in sys.modules:
        return import_module("torchvision")
    stand_in = sys.modules[NAME] = _StandIn(NAME)
    try:
        return import_module("torchvision")
    finally:
        stand_in.leave()


torchvision = _without_compiler()
