"""Intermediate results of exported files, by the names of the nodes of the traced graph."""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.exporting.files import SUFFIXES

Found = dict[str, Tensor]


def file_tensors(path: Path, names: Collection[str], images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Found:
    """Run an exported file and return intermediate results.

    Args:
        path: the file.
        names: names of nodes of the traced graph; nodes that the file does not contain are skipped.
        images: see :class:`~tldet.exporting.graph.DetectorGraph`.
        sizes: see :class:`~tldet.exporting.graph.DetectorGraph`.
    """
    run: Callable[..., Found] = {
        SUFFIXES["onnx"]: _from_onnx, SUFFIXES["openvino"]: _from_openvino, SUFFIXES["torch"]: _from_torch,
    }[path.suffix]  # fmt: skip
    return {name: found.float() for name, found in run(path, names, images, sizes).items()}


def program_tensors(module: Any, names: Collection[str], images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Found:
    """Run a traced graph and return intermediate results."""
    recorder = _Recorder(module, names)
    with torch.inference_mode():
        recorder.run(torch.from_numpy(images), torch.from_numpy(sizes))
    return recorder.found


class _Recorder(torch.fx.Interpreter):
    def __init__(self, module: Any, names: Collection[str]) -> None:
        super().__init__(module)
        self.names, self.found = set(names), Found()

    def run_node(self, node: torch.fx.Node) -> Any:
        value = super().run_node(node)
        if node.name in self.names:
            self.found[node.name] = value.clone()  # a later operation may write to it
        return value


def _from_torch(path: Path, names: Collection[str], images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Found:
    return program_tensors(torch.export.load(path).module(), names, images, sizes)


def _from_onnx(path: Path, names: Collection[str], images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Found:
    onnx, ort = import_module("onnx"), import_module("onnxruntime")
    model = onnx.load(path)
    present = {output for node in model.graph.node for output in node.output}
    wanted = [name for name in names if name in present]
    known = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted if name not in known)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = session.run(wanted, {"images": images, "sizes": sizes})
    return {name: torch.from_numpy(np.asarray(one)) for name, one in zip(wanted, found, strict=True)}


def _from_openvino(path: Path, names: Collection[str], images: NDArray[np.uint8], sizes: NDArray[np.int64]) -> Found:
    core = import_module("openvino").Core()
    model = core.read_model(path)
    ports = {name: port for node in model.get_ops() for port in node.outputs() for name in port.names}
    wanted = [name for name in names if name in ports]
    model.add_outputs([ports[name] for name in wanted])
    results = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})({"images": images, "sizes": sizes})
    first = len(results) - len(wanted)
    return {name: torch.from_numpy(np.array(results[first + number])) for number, name in enumerate(wanted)}
