"""How the process keeps memory it has freed, and the most it has held."""

from __future__ import annotations

import ctypes
import platform
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library reuse large blocks instead of giving each back to the system.

    By default glibc maps every block over 32 MB anew, and the system clears it page by page: on a processor a fifth of
    a training step. What is kept lies in one arena, so that every thread finds what another has freed. Only for whole
    commands: it holds for the process, which then keeps its peak of memory.

    Returns:
        Whether it was done; only glibc is known to need it.
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wishes = ((M_MMAP_THRESHOLD, LARGEST // 2), (M_TRIM_THRESHOLD, LARGEST), (M_ARENA_MAX, 1))
    return all(mallopt(option, value) for option, value in wishes)


def give_back_memory() -> bool:
    """Give what is free now back to the system: after :func:`keep_freed_memory`, what loading has left.

    Returns:
        Whether it was done; see there.
    """
    return _is_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def _is_glibc() -> bool:
    return sys.platform.startswith("linux") and platform.libc_ver()[0] == "glibc"


def peak_mb() -> float:
    """The most memory this process has held, in MB; NaN where the system does not say (Windows).

    Linux counts into ``ru_maxrss`` what the parent held when it started the process; ``VmHWM`` is its own.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        if sys.platform == "win32":
            return float("nan")
        import resource

        unit = 2**20 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def device_peak_mb() -> float:
    """The most that tensors have taken on the GPU, in MB, where one is in use; else :func:`peak_mb`."""
    import torch  # not needed by processes that are measured without it

    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mb()
