"""OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.errors import ConfigError
from tldet.inference.runtimes.base import METADATA_KEY, broken, need, parsed

HINTS = {"auto": "f32", "fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoRuntime:
    """An OpenVINO model.

    Args:
        path: the ``.xml`` file, with the weights in a ``.bin`` file next to it.
        device: ``auto`` and ``cpu`` are the CPU; ``gpu`` is Intel's GPU.
        threads: threads of one inference; None leaves the choice to OpenVINO.
        precision: computation precision; ``auto`` is fp32, as in the verification of exports.

    Raises:
        CheckpointError: the file cannot be loaded.
        ConfigError: the package or the device is missing.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None, precision: str = "auto") -> None:
        self._arguments = (path, device, threads, precision)
        openvino: Any = need("openvino", "openvino")
        core = openvino.Core()
        target = {"auto": "CPU", "cpu": "CPU", "gpu": "GPU"}.get(device)
        if target is None or target not in {name.partition(".")[0] for name in core.available_devices}:
            raise ConfigError(f"device {device}: OpenVINO has {', '.join(core.available_devices).lower()}")
        if precision not in HINTS:
            raise ConfigError(f"precision {precision!r}: must be {', '.join(HINTS)}")
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(path)
            text = model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else None
            self._model = core.compile_model(model, target, config)
        except RuntimeError as error:
            raise broken(path, error, "OpenVINO") from None
        self.metadata = parsed(text, path)
        version = openvino.__version__.partition("-")[0]
        self.name = f"OpenVINO {version} on {target.lower()}, {HINTS[precision]}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path: the file is loaded again."""
        return type(self), self._arguments

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[Tensor]:
        """Run the graph."""
        found = self._model({"images": images, "sizes": sizes})
        return [torch.from_numpy(np.array(found[port])) for port in self._model.outputs]
