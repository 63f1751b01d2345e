"""Interface of the runtimes, and shared helpers."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .errors import CheckpointError, ConfigError

INPUTS = {"images": "uint8", "sizes": "int64"}  # inputs of a graph and their types


class Session(Protocol):
    """Exported file loaded in a runtime.

    Attributes:
        name: name of the runtime with its device, for messages.
        path: the file.
        metadata: metadata of the file.
    """

    name: str
    path: Path
    metadata: dict[str, Any]

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Run the graph.

        Args:
            images: (B, H, W, 3) uint8 RGB, padded at the right and at the bottom.
            sizes: (B, 2) int64 (height, width) of each image within the padding.

        Returns:
            boxes (B, N, 4) float32 xyxy in pixels of ``images``, scores (B, N) float32, labels (B, N) int64, counts
            (B,) int64 of valid rows, and for a mask detector patches (B, N, S, S) float32.
        """
        ...


def need(package: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        ConfigError: the package is not installed; the message contains the pip command.
    """
    if find_spec(package) is None:
        distribution = "tldet" if __name__.startswith("tldet.") else "tldet-runtime"
        raise ConfigError(f"{package} is not installed: pip install '{distribution}[{extra}]'")
    return import_module(package)


def unloadable(path: Path, error: Exception, runtime: str) -> CheckpointError:
    """Return the error for a file that a runtime cannot load."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CheckpointError(f"{path}: {runtime} cannot load the file ({reason})")


def require_inputs(path: Path, types: Mapping[str, str]) -> None:
    """Check the inputs of a graph.

    Args:
        path: the file.
        types: type of each input by name, such as ``uint8``.

    Raises:
        CheckpointError: the inputs differ.
    """
    if dict(types) != INPUTS:
        found, wanted = (", ".join(f"{name} ({kind})" for name, kind in one.items()) for one in (types, INPUTS))
        raise CheckpointError(
            f"{path}: has the inputs {found or 'none'} instead of {wanted}; export the detector again"
        )
