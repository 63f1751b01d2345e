"""What the numbers depend on, and what the machine can do at most."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from tldet.benchmarks.timing import best_of
from tldet.engine.precision import cpu_has_bf16

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "albumentations", "pycocotools", "hotcoco", "av")
BUSY = 0.25  # load a core above which times say little
SIDE = 2048  # of the matrices multiplied


def environment() -> dict[str, Any]:
    """Processor, cores, threads, versions and the load average before anything was started."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "bf16": cpu_has_bf16(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else [],
        "system": platform.platform(),
        "python": platform.python_version(),
        "tldet": _tldet_version(),
        "versions": {name: found for name in PACKAGES if (found := installed(name))},
    }


def is_busy(found: dict[str, Any]) -> bool:
    """Whether others use the machine, by its load average of the last minute."""
    return bool(found["load"]) and found["load"][0] > BUSY * found["cores"]


def processor() -> str:
    """Its name as Linux has it, elsewhere as Python has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def installed(package: str) -> str | None:
    """The version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tldet_version() -> str:
    import tldet

    return tldet.__version__


def product_peak(dtype: torch.dtype) -> float:
    """Floating-point operations a second of a square matrix product, the most of several runs."""
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    out = torch.empty(SIDE, SIDE, dtype=dtype)
    return float(2 * SIDE**3 / best_of(lambda: torch.mm(a, b, out=out), runs=6))
