"""Search for the stage and the layer at which an exported file diverges from its checkpoint."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tldet.exporting.graph import GraphOptions, StageGraph, prepare_for_tracing, raw_tensors, trace_graph
from tldet.exporting.intermediate import Found, file_tensors, program_tensors
from tldet.exporting.verify import detection_distance
from tldet.inference.runtimes.exported import ExportedDetector, graph_inputs
from tldet.models.detector import Detector
from tldet.structures.batch import Batch

_LAYERS = ("aten.conv2d.", "aten.conv_transpose2d.", "aten.linear.")
_DECODING = "after the head's raw outputs (RoI layers, box decoding or NMS)"
_ROUNDING = 1e-3  # distance of detections that differ by rounding only


@dataclass(frozen=True)
class Divergence:
    """Differences of an exported file from its checkpoint, by stage and layer.

    Attributes:
        errors: relative error of each intermediate result of the file, in the order of computation.
        layers: relative error of each convolution and linear layer before the head's raw outputs.
        decoding: distance of the file's detections from those that torch decodes from the file's raw outputs.
        total: distance of the file's detections from those of the checkpoint.
    """

    errors: Mapping[str, float]
    layers: Sequence[tuple[str, float]]
    decoding: float
    total: float

    @property
    def stage(self) -> str:
        """Stage at which the error grows most."""
        decoding = self.decoding > max(_ROUNDING, self.total / 2)
        return _DECODING if decoding else _steepest(list(self.errors.items()))[0]

    def describe(self) -> str:
        """Return one line."""
        if self.stage == _DECODING:
            return (
                f"stage: {self.stage}; decoding the raw outputs of the file with torch gives different detections "
                f"(distance {self.decoding:.3f}; from the checkpoint: {self.total:.3f})"
            )
        name, before, after = _steepest(list(self.errors.items()))
        text = f"stage: {name} (relative error {after:.2%}, at most {before:.2%} before it)"
        if self.layers:
            layer, before, after = _steepest(self.layers)
            text += f", layer: {layer} (relative error {after:.2%}, at most {before:.2%} before it)"
        return text


def _steepest(errors: Sequence[tuple[str, float]]) -> tuple[str, float, float]:
    """Return the name at which the maximum error so far grows most, and this maximum before and after it."""
    best, largest = (errors[0][0], 0.0, errors[0][1]), errors[0][1]
    for name, error in errors[1:]:
        if error - largest > best[2] - best[1]:
            best = (name, largest, error)
        largest = max(largest, error)
    return best


def find_divergence(
    path: Path, detector: Detector, exported: ExportedDetector, batch: Batch, options: GraphOptions, *, half: bool
) -> Divergence:
    """Compare the intermediate results of a file with those of its checkpoint on one image.

    Args:
        path: the file.
        detector: the detector of the checkpoint.
        exported: the loaded file.
        batch: the image at the input size of the graph.
        options: inputs and outputs of the graph.
        half: the file was exported in fp16.
    """
    images, sizes = graph_inputs(batch)
    with torch.inference_mode():
        expected, raw = StageGraph(detector).stages(torch.from_numpy(images), torch.from_numpy(sizes))
    reference = _traced(detector, options, half=False)
    program = _traced(detector, options, half=True) if half else reference
    names = dict(zip(expected, _outputs(program), strict=True))
    layers, plain = list(_layers(program)), [node for _, node in _layers(reference)]
    found = file_tensors(path, {*names.values(), *(node for _, node in layers)}, images, sizes)
    values = program_tensors(reference.module(), plain, images, sizes)
    errors = {name: _error(expected[name], found[node]) for name, node in names.items() if node in found}
    pairs = zip(layers, plain, strict=True)
    by_layer = [(name, _error(values[one], found[node])) for (name, node), one in pairs if node in found]
    total, decoding = _distances(detector, exported, batch, raw, {n: found[names[n]] for n in errors}, expected)
    return Divergence(errors, by_layer, decoding, total)


def _traced(detector: Detector, options: GraphOptions, *, half: bool) -> torch.export.ExportedProgram:
    return trace_graph(prepare_for_tracing(copy.deepcopy(detector), half=half), options, StageGraph)


def _outputs(program: torch.export.ExportedProgram) -> Iterator[str]:
    """Yield the names of the output nodes; dtype conversions are skipped, because ONNX graphs name them differently."""
    nodes = {node.name: node for node in program.graph.nodes}
    for name in program.graph_signature.user_outputs:
        node = nodes[name]
        while str(node.target).startswith("aten.to."):
            node = node.args[0]
        yield node.name


def _layers(program: torch.export.ExportedProgram) -> Iterator[tuple[str, str]]:
    """Yield the names of module and node of each convolution and linear layer."""
    for node in program.graph.nodes:
        if node.op == "call_function" and str(node.target).startswith(_LAYERS):
            stack = list(node.meta["nn_module_stack"].values())
            yield str(stack[-1][0]).removeprefix("detector.").replace(".inner", ""), node.name


def _error(expected: Tensor, found: Tensor) -> float:
    """Return the relative error of a tensor (root mean square)."""
    expected = expected.double()
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-12))


def _distances(
    detector: Detector, exported: ExportedDetector, batch: Batch, raw: Any, found: Found, expected: Found
) -> tuple[float, float]:
    """Return distances of the file's detections from the checkpoint's, and from its raw outputs decoded by torch."""
    by_id = {id(tensor): found.get(name) for name, tensor in expected.items()}
    head: Any = detector.head
    with torch.inference_mode():
        ours = head.decode(raw, batch.sizes)
        theirs = exported.predict(batch)
        total = detection_distance(ours, theirs)
        if any(by_id.get(id(tensor)) is None for _, tensor in raw_tensors(raw)):
            return total, 0.0
        return total, detection_distance(head.decode(_replaced(raw, by_id), batch.sizes), theirs)


def _replaced(raw: Any, by_id: Mapping[int, Tensor | None]) -> Any:
    """Replace the tensors in nested raw outputs."""
    if isinstance(raw, Tensor):
        return by_id[id(raw)]
    if hasattr(raw, "_fields"):
        return type(raw)(*(_replaced(one, by_id) for one in raw))
    if isinstance(raw, (tuple, list)):
        return type(raw)(_replaced(one, by_id) for one in raw)
    return raw
