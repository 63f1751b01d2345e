"""Environment of a measurement, and peak performance of the machine."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import best_of
from tldet.system.device import cpu_has_bf16

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python", "albumentations", "pycocotools", "hotcoco", "av")
BUSY = 0.25  # load per core above which times are unreliable
SIDE = 2048  # of the multiplied matrices
MAP = (100, 168, 256)  # height, width and channels of the convolved map, P3 of an 800x1333 image
PEAK = "of the fastest matrix product or convolution in the same precision"


def environment() -> dict[str, Any]:
    """Return processor, cores, threads, versions and the load average."""
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
    """Return True if the load average of the last minute is high."""
    return bool(found["load"]) and found["load"][0] > BUSY * found["cores"]


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def installed(package: str) -> str | None:
    """Return the version of a package, or None."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tldet_version() -> str:
    import tldet

    return tldet.__version__


def machine_peak(dtype: torch.dtype) -> float:
    """Return the peak floating-point operations per second of a matrix product or a convolution.

    Different libraries compute these, so the faster one depends on the processor.
    """
    a, b = (torch.randn(SIDE, SIDE).to(dtype) for _ in range(2))
    out = torch.empty(SIDE, SIDE, dtype=dtype)
    product = 2 * SIDE**3 / best_of(lambda: torch.mm(a, b, out=out), runs=6)
    height, width, channels = MAP
    maps, weight = torch.randn(1, channels, height, width), torch.randn(channels, channels, 3, 3)
    maps, weight = (tensor.to(dtype, memory_format=torch.channels_last) for tensor in (maps, weight))
    with torch.inference_mode():
        seconds = best_of(lambda: torch.conv2d(maps, weight, padding=1), runs=6)
    return float(max(product, 2 * 9 * channels**2 * height * width / seconds))
