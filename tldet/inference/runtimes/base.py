"""Interface of runtimes, and the metadata of exported detectors."""

from __future__ import annotations

import json
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tldet.errors import CheckpointError, ConfigError

METADATA_KEY = "tldet"  # key of the metadata in a file
METADATA_VERSION = 1
_FIELDS = {"format": int, "kind": str, "class_names": list, "category_ids": list, "input": dict, "precision": str}


class Runtime(Protocol):
    """A loaded file.

    Attributes:
        name: name of the runtime with its device, for messages.
        metadata: metadata of the file.
    """

    name: str
    metadata: dict[str, Any]

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[Tensor]:
        """Return the outputs of :class:`~tldet.exporting.graph.DetectorGraph` for its inputs."""
        ...


def need(package: str, extra: str) -> Any:
    """Import an optional package.

    Raises:
        ConfigError: it is not installed; the message names the pip command.
    """
    if find_spec(package) is None:
        raise ConfigError(f"{package} is not installed: pip install 'tldet[{extra}]'")
    return import_module(package)


def parsed(text: str | None, path: Path) -> dict[str, Any]:
    """Parse the metadata of a file.

    Raises:
        CheckpointError: the metadata is missing or malformed, or the file is not a complete detector.
    """
    try:
        metadata: Any = json.loads(text) if text else None
    except json.JSONDecodeError:
        metadata = None
    if not isinstance(metadata, dict) or any(not isinstance(metadata.get(k), t) for k, t in _FIELDS.items()):
        raise CheckpointError(f"{path}: is not a detector exported by tldet (no metadata {METADATA_KEY!r})")
    if metadata["format"] > METADATA_VERSION:
        raise CheckpointError(
            f"{path}: has metadata version {metadata['format']}, but this version of tldet reads {METADATA_VERSION}; "
            "update tldet"
        )
    if metadata["kind"] != "detector":
        raise CheckpointError(f"{path}: was exported with --raw, so its outputs are not detections; export without it")
    if len(metadata["class_names"]) != len(metadata["category_ids"]):
        raise CheckpointError(
            f"{path}: has {len(metadata['class_names'])} class names, but {len(metadata['category_ids'])} category ids"
        )
    return metadata


def broken(path: Path, error: Exception, runtime: str) -> CheckpointError:
    """Return the error for a file that a runtime cannot load."""
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return CheckpointError(f"{path}: {runtime} cannot load it ({reason})")
