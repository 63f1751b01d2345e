"""How the process keeps memory it has freed."""

from __future__ import annotations

import ctypes
import platform
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have the C library reuse large blocks instead of giving each back to the system.

    By default glibc maps every block over 32 MB anew, and the system clears it page by page: on a processor a fifth of
    a training step. Only for whole commands: it holds for the process, which then keeps its peak of memory.

    Returns:
        Whether it was done; only glibc is known to need it.
    """
    if not sys.platform.startswith("linux") or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST // 2) and mallopt(M_TRIM_THRESHOLD, LARGEST))
