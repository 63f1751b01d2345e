"""The ``meta`` section of checkpoints."""

from __future__ import annotations

import platform

import torch


def versions() -> dict[str, str]:
    """Return the versions of tldet, Python, torch and torchvision."""
    import torchvision

    import tldet

    return {
        "tldet": tldet.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }
