"""Post-training quantization of a network, or of parts of it, to int8 with NNCF.

A part is a layer group of the backbone, or the layers of the neck or the head with a common name, such as
``neck.lateral``. Operations outside these groups, such as box decoding and NMS, are never quantized.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import ConfigError
from tldet.exporting.files import quiet
from tldet.exporting.quantizers import keep_quantizers
from tldet.models.backbones.base import within
from tldet.models.detector import Detector
from tldet.runtime.session import need
from tldet.system.imports import variable_set

INT8_FORMATS = ("onnx", "openvino")
Inputs = Mapping[str, NDArray[Any]]  # images and sizes, see DetectorGraph
_EXTENSIONS = "torch.utils.cpp_extension"  # logger of a module that NNCF imports; it warns that there is no GPU
_ROOTS = ("backbone", "neck", "head")
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Convolution", "GroupConvolution", "ConvolutionBackpropData")
_NO_OPERATION = ("Parameter", "Constant", "Result")
_TELEMETRY_OFF = "NNCF_CI"  # environment variable; NNCF reports usage to its authors unless it is set


@cache
def load_nncf() -> Any:
    """Import NNCF without its telemetry and without its change of the logger class.

    Raises:
        ConfigError: NNCF is not installed.
    """
    kind = logging.getLoggerClass()
    try:
        with variable_set(_TELEMETRY_OFF), quiet(_EXTENSIONS):
            return need("nncf", "int8")
    finally:
        logging.setLoggerClass(kind)


class Quantizer:
    """Quantizer of a detector's graph.

    Args:
        model: the graph as an ONNX or OpenVINO model, with node names of :func:`~tldet.exporting.files.onnx_model`.
        detector: the detector.
        inputs: calibration inputs of the graph, ordered so that the first N are representative for any N.

    Attributes:
        parts: names of the nodes of each part, in the order of computation.
    """

    def __init__(self, model: Any, detector: Detector, inputs: Sequence[Inputs]) -> None:
        self.model, self.inputs, self._nncf = model, inputs, load_nncf()
        backbone: Any = detector.backbone
        groups = backbone.layer_groups() if hasattr(backbone, "layer_groups") else []
        nodes = list(_nodes(model))
        self._names = [name for _, name in nodes]
        parts: dict[str, list[str]] = defaultdict(list)
        layered = set()
        for kind, name in nodes:
            if part := part_of(name.partition("/")[0], groups):
                parts[part].append(name)
                if kind in _LAYERS:
                    layered.add(part)
        self.parts = {part: names for part, names in parts.items() if part in layered}

    def quantize(self, parts: Collection[str], images: int, *, draft: bool = False) -> Any:
        """Return a copy of the model with some parts quantized to int8.

        Args:
            parts: names of the parts.
            images: number of calibration images.
            draft: store weights in fp32, before their quantizers, as :meth:`only_part` requires.

        Raises:
            ConfigError: NNCF cannot quantize the graph.
        """
        inside = {name for part in parts for name in self.parts[part]}
        ignored = [name for name in self._names if name not in inside]
        dataset = self._nncf.Dataset(list(self.inputs[:images]))
        # Weights use half of the 8-bit range: with the full range, sums of products saturate on CPUs without VNNI.
        settings = self._nncf.AdvancedQuantizationParameters(overflow_fix=self._nncf.OverflowFix.ENABLE)
        if not hasattr(self.model, "graph"):
            settings.backend_params["compress_weights"] = not draft
        try:
            with quiet("nncf", _EXTENSIONS), np.errstate(all="ignore"), contextlib.redirect_stdout(io.StringIO()):
                return self._nncf.quantize(
                    self.model,
                    dataset,
                    subset_size=images,
                    preset=self._nncf.QuantizationPreset.MIXED,
                    ignored_scope=self._nncf.IgnoredScope(names=ignored, validate=False),
                    advanced_parameters=settings,
                )
        except Exception as error:  # NNCF raises errors of many types
            raise ConfigError(f"NNCF cannot quantize the detector ({' '.join(str(error).split())[:200]})") from error

    def only_part(self, part: str, draft: Any) -> Any | None:
        """Return a model that is quantized in one part only; None if nothing is quantized in this part.

        Args:
            part: name of the part.
            draft: result of :meth:`quantize` for all parts, with ``draft``.
        """
        names = set(self.parts[part])
        return keep_quantizers(names, draft, self.model)


def part_of(path: str, groups: Iterable[tuple[str, Sequence[str]]]) -> str | None:
    """Return the part of a module, or None for a module outside backbone, neck and head.

    Args:
        path: name of the module in the detector.
        groups: layer groups of the backbone with the prefixes of their modules.
    """
    root, *names = path.split(".")
    if root not in _ROOTS:
        return None
    inner = ".".join(names)
    if root == "backbone":
        found = (name for name, prefixes in groups if within(inner, prefixes))
        return f"backbone.{group}" if (group := next(found, "")) else root
    number = next((at for at, name in enumerate(names) if name.isdecimal()), len(names))
    return ".".join([root, *names[:number]])


def _nodes(model: Any) -> Iterator[tuple[str, str]]:
    """Yield type and name of the nodes of an ONNX or OpenVINO model."""
    if hasattr(model, "graph"):
        yield from ((node.op_type, node.name) for node in model.graph.node)
        return
    for node in model.get_ordered_ops():
        if node.get_type_name() not in _NO_OPERATION:
            yield node.get_type_name(), node.get_friendly_name()
