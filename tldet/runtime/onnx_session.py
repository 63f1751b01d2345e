"""Inference with ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .metadata import METADATA_KEY, parse_metadata
from .session import need, require_inputs, unloadable

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxSession:
    """ONNX file loaded in ONNX Runtime.

    Args:
        path: the file.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; ``auto`` uses CUDA if the installed package supports it and
            it starts, else the CPU.
        threads: number of threads per operator; None: chosen by ONNX Runtime.
        providers: names of execution providers in order of preference, instead of ``device``; operators that none of
            them supports run on the CPU.

    Raises:
        CheckpointError: the file cannot be loaded.
        ConfigError: the package, the device or a provider is missing.
    """

    def __init__(
        self, path: Path, device: str = "auto", threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        self._arguments = (path, device, threads, providers)
        ort: Any = need("onnxruntime", "onnx")
        chosen = _providers(device, providers, ort.get_available_providers())
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        try:
            self._session = ort.InferenceSession(str(path), options, providers=chosen)
        except Exception as error:  # of many types
            raise unloadable(path, error, "ONNX Runtime") from None
        first = self._session.get_providers()[0]
        wanted = chosen[0] if isinstance(chosen[0], str) else chosen[0][0]
        if first != wanted and not (device == "auto" and providers is None):
            raise ConfigError(f"ONNX Runtime could not start {wanted}: its libraries or the device are missing")
        self.metadata = parse_metadata(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
        inputs = self._session.get_inputs()
        require_inputs(path, {one.name: one.type.removeprefix("tensor(").removesuffix(")") for one in inputs})
        self.path = path
        self.name = f"ONNX Runtime {ort.__version__} on {first.removesuffix('ExecutionProvider').lower()}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path: the file is loaded again."""
        return type(self), self._arguments

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Run the graph."""
        return [np.asarray(one) for one in self._session.run(None, {"images": images, "sizes": sizes})]


def _providers(device: str, given: Sequence[str] | None, available: Sequence[str]) -> list[Any]:
    """Return the execution providers for ONNX Runtime, with their options if they have any.

    Raises:
        ConfigError: the device or a provider is unknown or not installed.
    """
    if given is not None:
        if device != "auto":
            raise ConfigError(f"device {device}: use either a device or providers, not both")
        if not given or (missing := [name for name in given if name not in available]):
            what = f"{missing[0]} is not available" if given else "specify at least one"
            raise ConfigError(f"providers: {what}; ONNX Runtime has {', '.join(available)}")
        return [*given, *([] if CPU in given else [CPU])]
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(f"device {device}: must be auto, cpu, cuda or cuda:N for an ONNX file")
    if device.startswith("cuda") and CUDA not in available:
        raise ConfigError(
            f"device {device}: the installed ONNX Runtime has no CUDA support; pip install onnxruntime-gpu"
        )
    if device == "cpu" or CUDA not in available:
        return [CPU]
    number = device.partition(":")[2]
    return [(CUDA, {"device_id": int(number)}) if number else CUDA, CPU]
