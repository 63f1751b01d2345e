"""Inference with exported detectors without torch: numpy, OpenCV, and ONNX Runtime or OpenVINO.

This folder is also distributed as the package ``tldet_runtime`` of tldet-runtime (see ``runtime/pyproject.toml``).
Therefore its files use relative imports and import nothing else from tldet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detections import NumpyDetections as NumpyDetections
    from .detector import NumpyDetector as NumpyDetector
    from .errors import TldetError as TldetError

__version__ = "0.1.0"
__all__ = ["NumpyDetections", "NumpyDetector", "TldetError"]
SCORE = 0.3  # default score threshold, in Python and on the command line
_MODULES = {"NumpyDetections": ".detections", "NumpyDetector": ".detector", "TldetError": ".errors"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
