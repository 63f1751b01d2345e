"""Torchvision without torch's compiler.

``torchvision.ops.roi_align`` imports ``torch._dynamo`` for one question, which it asks in deterministic runs on a GPU
only; with it come sympy, triton and torch's compiler: three seconds and 140 MB at the start of every process. Here the
question imports them when it is asked. Every module of tldet takes torchvision from here.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

NAME, QUESTION = "torch._dynamo.utils", "is_compile_supported"


def _without_compiler() -> Any:
    if "torchvision" in sys.modules or NAME in sys.modules:
        return import_module("torchvision")
    stand_in = ModuleType(NAME)
    setattr(stand_in, QUESTION, lambda device: getattr(import_module(NAME), QUESTION)(device))
    sys.modules[NAME] = stand_in
    try:
        return import_module("torchvision")
    except ImportError:  # another version of torchvision, which wants more of it
        pass
    finally:
        del sys.modules[NAME]
    return import_module("torchvision")


torchvision = _without_compiler()
