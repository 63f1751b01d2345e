"""Inference with TensorRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.errors import CheckpointError, ConfigError
from tldet.runtime.metadata import parse_metadata
from tldet.runtime.session import need, unloadable
from tldet.system.inputs import require_file


class TensorRtSession:
    """A TensorRT engine on a CUDA GPU.

    Args:
        path: the ``.engine`` file, with its metadata in a ``.json`` file next to it.
        device: ``auto`` or ``cuda``.

    Raises:
        CheckpointError: the engine cannot be loaded; it runs only on the type of GPU it was built on.
        ConfigError: the package or a GPU is missing, or another device is requested.
    """

    def __init__(self, path: Path, device: str = "auto") -> None:
        self.path, self._arguments = path, (path, device)
        require_file(path, CheckpointError)
        if device not in ("auto", "cuda"):
            raise ConfigError(f"device {device}: must be auto or cuda for a TensorRT engine")
        trt: Any = need("tensorrt", "tensorrt")
        if not torch.cuda.is_available():
            raise ConfigError(f"{path}: a TensorRT engine needs a CUDA GPU")
        stated = path.with_suffix(".json")
        require_file(stated, CheckpointError)
        self.metadata = parse_metadata(stated.read_text(encoding="utf-8"), path)
        self._engine = trt.Runtime(trt.Logger(trt.Logger.ERROR)).deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            raise unloadable(path, RuntimeError("built by another version or for another GPU"), "TensorRT")
        self._context = self._engine.create_execution_context()
        names = [self._engine.get_tensor_name(number) for number in range(self._engine.num_io_tensors)]
        self._outputs = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.OUTPUT]
        self.name = f"TensorRT {trt.__version__} on cuda"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path: the file is loaded again."""
        return type(self), self._arguments

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Run the graph."""
        given = {"images": torch.from_numpy(images).cuda(), "sizes": torch.from_numpy(sizes).cuda()}
        for name, tensor in given.items():
            self._context.set_input_shape(name, tuple(tensor.shape))
            self._context.set_tensor_address(name, tensor.data_ptr())
        found = [self._empty(name) for name in self._outputs]
        stream = torch.cuda.current_stream()
        self._context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        return [tensor.cpu().numpy() for tensor in found]

    def _empty(self, name: str) -> Tensor:
        """Allocate an output and bind it."""
        kind = torch.int64 if name in ("labels", "counts") else torch.float32
        tensor = torch.empty(tuple(self._context.get_tensor_shape(name)), dtype=kind, device="cuda")
        self._context.set_tensor_address(name, tensor.data_ptr())
        return tensor
