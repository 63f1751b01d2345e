"""How the process keeps memory it has freed, and the most it has held."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # malloc.h
LARGEST = 2**31 - 1
TUNABLES = "GLIBC_TUNABLES"


def keep_freed_memory() -> bool:
    """Have the C library reuse large blocks instead of giving each back to the system.

    By default glibc maps every block over 32 MB anew, and the system clears it page by page: on a processor a fifth of
    a training step. What is kept lies in one arena, so that every thread finds what another has freed. Only for whole
    commands: it holds for the process, which then keeps its peak of memory.

    Returns:
        Whether it was done; only glibc is known to need it.
    """
    if not is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    wishes = ((M_MMAP_THRESHOLD, LARGEST // 2), (M_TRIM_THRESHOLD, LARGEST), (M_ARENA_MAX, 1))
    return all(mallopt(option, value) for option, value in wishes)


def give_back_memory() -> bool:
    """Give what is free now back to the system: after :func:`keep_freed_memory`, what loading has left.

    Returns:
        Whether it was done; see there.
    """
    return is_glibc() and bool(ctypes.CDLL(None).malloc_trim(0))


def restart_without_caches() -> None:
    """Start this process over, where needed, with what :func:`without_caches` says; before anything is done.

    Not where the program cannot be run again, because it was typed or came through a pipe.
    """
    change = without_caches(os.environ)
    if change and sys.executable and sys.argv[0] not in ("", "-") and not hasattr(sys, "ps1"):
        with suppress(OSError):  # then it runs as it is, with more memory
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **change})


def without_caches(environment: Mapping[str, str]) -> dict[str, str]:
    """The variable with which threads of the C library keep no small blocks of their own; for whole commands.

    torch asks for aligned memory, behind which glibc leaves a gap of about 100 bytes; a tensor's record is put there.
    Kept by its thread when the tensor is gone, it holds the gap, and the next map of the same size no longer fits into
    the place of the last: predicting on large pictures takes 50 to 250 MB more. The setting is read when a process
    starts, and at no other time; processes started from there have it too.

    Returns:
        What to add to ``environment``; empty where it is so already, was decided by the user, or means nothing because
        there is no glibc.
    """
    given = environment.get(TUNABLES, "")
    if not is_glibc() or "tcache_count" in given:
        return {}
    setting = "glibc.malloc.tcache_count=0"
    return {TUNABLES: f"{given}:{setting}" if given else setting}


def is_glibc() -> bool:
    """Whether memory is given out by the GNU C library."""
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
