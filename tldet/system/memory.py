"""Peak memory of the process and of the GPU."""

from __future__ import annotations

import sys
from pathlib import Path


def peak_mb() -> float:
    """Return the peak memory of this process in MB; NaN on Windows.

    On Linux, ``ru_maxrss`` includes the memory of the parent when it started this process; ``VmHWM`` does not.
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
    """Return the peak memory of tensors on the GPU in MB; without a GPU, :func:`peak_mb`."""
    import torch  # imported here: processes without torch are measured too

    if torch.cuda.is_available() and torch.cuda.memory_allocated():
        return torch.cuda.max_memory_allocated() / 2**20
    return peak_mb()
