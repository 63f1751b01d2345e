"""Inference with OpenVINO."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .metadata import METADATA_KEY, parse_metadata
from .session import need, require_inputs, unloadable

HINTS = {"auto": "f32", "fp32": "f32", "bf16": "bf16", "fp16": "f16"}


class OpenVinoSession:
    """OpenVINO model.

    Args:
        path: the ``.xml`` file; its weights are in the ``.bin`` file next to it.
        device: ``auto`` or ``cpu`` for the CPU; ``gpu``, ``gpu.1`` or ``npu`` for Intel GPUs and NPUs.
        threads: number of threads on a CPU, ignored on other devices; None: chosen by OpenVINO.
        precision: inference precision; ``auto`` is fp32, as in the verification of the export.

    Raises:
        CheckpointError: the file cannot be loaded.
        ConfigError: the package or the device is missing.
    """

    def __init__(self, path: Path, device: str = "auto", threads: int | None = None, precision: str = "auto") -> None:
        self._arguments = (path, device, threads, precision)
        openvino: Any = need("openvino", "openvino")
        core = openvino.Core()
        target = "CPU" if device == "auto" else device.upper()
        available = {*core.available_devices, *(name.partition(".")[0] for name in core.available_devices)}
        if target not in available:
            raise ConfigError(
                f"device {device}: not available; OpenVINO supports {', '.join(core.available_devices).lower()} here"
            )
        if precision not in HINTS:
            raise ConfigError(f"precision {precision!r}: must be {', '.join(HINTS)}")
        config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": HINTS[precision]}
        if threads and target == "CPU":
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(path)
            text = model.get_rt_info([METADATA_KEY]).astype(str) if model.has_rt_info([METADATA_KEY]) else None
            self._model = core.compile_model(model, target, config)
        except RuntimeError as error:
            raise unloadable(path, error, "OpenVINO") from None
        self.metadata = parse_metadata(text, path)
        inputs = self._model.inputs
        require_inputs(path, {one.any_name: np.dtype(one.get_element_type().to_dtype()).name for one in inputs})
        self.path = path
        version = openvino.__version__.partition("-")[0]
        self.name = f"OpenVINO {version} on {target.lower()}, {HINTS[precision]}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by path: the file is loaded again."""
        return type(self), self._arguments

    def run(self, images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> list[NDArray[Any]]:
        """Run the graph."""
        found = self._model({"images": images, "sizes": sizes})
        return [np.array(found[port]) for port in self._model.outputs]
