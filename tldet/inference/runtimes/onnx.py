"""ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.errors import ConfigError
from tldet.inference.runtimes.base import METADATA_KEY, broken, need, parsed


class OnnxRuntime:
    """An ONNX file in ONNX Runtime.

    Args:
        path: the file.
        device: ``auto``, ``cpu`` or ``cuda``; auto is a GPU if the installed package supports one.
        threads: threads of one operator; None leaves the choice to ONNX Runtime.

    Raises:
        CheckpointError: the file cannot be loaded.
        ConfigError: the package or the device is missing.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None) -> None:
        self._arguments = (path, device, threads)
        ort: Any = need("onnxruntime", "onnx")
        available = ort.get_available_providers()
        gpu = device.startswith("cuda") or (device == "auto" and "CUDAExecutionProvider" in available)
        if gpu and "CUDAExecutionProvider" not in available:
            raise ConfigError(f"device {device}: this ONNX Runtime has no CUDA: pip install onnxruntime-gpu")
        if device != "auto" and not gpu and device != "cpu":
            raise ConfigError(f"device {device}: must be auto, cpu or cuda for an ONNX file")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads or 0
        providers = [*(["CUDAExecutionProvider"] if gpu else []), "CPUExecutionProvider"]
        try:
            self._session = ort.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # of many types, for files of other formats and opsets
            raise broken(path, error, "ONNX Runtime") from None
        self.metadata = parsed(self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY), path)
        self.name = f"ONNX Runtime {ort.__version__} on {'cuda' if gpu else 'cpu'}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path: the file is loaded again."""
        return type(self), self._arguments

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[Tensor]:
        """Run the graph."""
        found = self._session.run(None, {"images": images, "sizes": sizes})
        return [torch.from_numpy(np.asarray(one)) for one in found]
