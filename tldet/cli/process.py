"""Settings of the process of a command, which library functions never change: allocator, environment, imports."""

from __future__ import annotations

import os
import platform
import sys
from importlib import import_module
from types import ModuleType
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
_LARGEST = 2**31 - 1
COMPILER = "torch._dynamo.utils"
# Commands that run a network
RUNNING = (
    "train",
    "finetune",
    "extend",
    "fewshot",
    "pretrain",
    "study",
    "test",
    "report",
    "compare",
    "predict",
    "serve",
    "export",
    "check",
    "browse",
    "quickstart",
)


def prepare_process(command: str) -> None:
    """Set up the process of a command.

    Args:
        command: name of the command.
    """
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # no network request, also in loader processes
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")  # ten lines about a missing camera, which tldet reports
    if command in RUNNING:
        keep_freed_memory()


def keep_freed_memory() -> bool:
    """Let the C library reuse large memory blocks instead of returning each to the system.

    By default, glibc maps every block over 32 MB anew, and the system clears it page by page, which takes a fifth of a
    training step on CPU. All threads share one arena, so that a thread can reuse the memory of others. The process
    keeps its peak memory until it ends.

    Returns:
        True if it was set, which only glibc needs.
    """
    if not is_glibc():
        return False
    import ctypes

    mallopt = ctypes.CDLL(None).mallopt
    options = ((M_MMAP_THRESHOLD, _LARGEST // 2), (M_TRIM_THRESHOLD, _LARGEST), (M_ARENA_MAX, 1))
    return all(mallopt(option, value) for option, value in options)


def return_free_memory() -> bool:
    """Return free memory to the system once, for example after loading a detector with :func:`keep_freed_memory`.

    Returns:
        True if memory was returned.
    """
    import ctypes

    return is_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def is_glibc() -> bool:
    """Return True if memory is allocated by the GNU C library."""
    return sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"


class _StandIn(ModuleType):
    """Stand-in for :data:`COMPILER` that imports the module on first use."""

    def is_compile_supported(self, device: str) -> Any:
        """Call the function of the module."""
        return self.module().is_compile_supported(device)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.module(), name)

    def module(self) -> Any:
        """Import the module in place of this one."""
        self.leave()
        return import_module(COMPILER)

    def leave(self) -> None:
        """Stop being imported."""
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]


def import_without_compiler() -> None:
    """Import torchvision without torch's compiler, which takes 3 seconds and 140 MB.

    Prediction commands call this before their other imports. ``torchvision.ops.roi_align`` imports the compiler for one
    function, which it calls only in deterministic runs on a GPU; a stand-in replaces the compiler during the import.
    Nothing is done if either is imported already. timm imports the compiler in any case.
    """
    if "torchvision" in sys.modules or COMPILER in sys.modules:
        return
    stand_in = sys.modules[COMPILER] = _StandIn(COMPILER)
    try:
        import_module("torchvision")
    finally:
        stand_in.leave()
