"""Removal of quantizers from a quantized model, to measure the effect of quantizing one part."""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any

import numpy as np


def keep_quantizers(names: Collection[str], quantized: Any, plain: Any) -> Any | None:
    """Return a copy of a quantized model that keeps quantizers at the inputs of some nodes only; None if none are left.

    Biases of the other nodes that quantization corrected are restored.

    Args:
        names: names of the nodes.
        quantized: the ONNX or OpenVINO model, whose weights are stored in fp32, before their quantizers.
        plain: the model before quantization.
    """
    return _onnx_kept(names, quantized, plain) if hasattr(plain, "graph") else _openvino_kept(names, quantized, plain)


def _openvino_kept(names: Collection[str], quantized: Any, plain: Any) -> Any | None:
    model, left = quantized.clone(), 0
    before = {node.get_friendly_name(): node for node in plain.get_ops()}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        for number, port in enumerate(node.inputs()):
            source = port.get_source_output().get_node()
            if source.get_type_name() == "FakeQuantize":
                if name in names:
                    left += 1
                else:
                    port.replace_source_output(source.input_value(0))
            elif source.get_type_name() == "Constant" and node.get_type_name() == "Add" and name not in names:
                original = before[name].input_value(number).get_node()
                if not np.array_equal(original.data, source.data):
                    constant = import_module("openvino").op.Constant(np.array(original.data))
                    port.replace_source_output(constant.output(0))
    return model if left else None


def _onnx_kept(names: Collection[str], quantized: Any, plain: Any) -> Any | None:
    model, left = type(quantized)(), 0
    model.CopyFrom(quantized)
    sources = {node.output[0]: node for node in model.graph.node}
    current = {one.name: one for one in quantized.graph.initializer}
    before = {node.name: node for node in plain.graph.node}
    originals = {one.name: one for one in plain.graph.initializer}
    restored: set[str] = set()
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            back: Any = sources.get(name)
            is_quantized = back is not None and back.op_type == "DequantizeLinear"
            if node.name in names:
                left += is_quantized
                continue
            original = before[node.name].input[number] if node.name in before else ""
            if original in originals and (is_quantized or current[name] != originals[original]):  # weight or bias
                node.input[number] = f"{original}/plain"
                restored.add(original)
            elif is_quantized and back.input[0] in sources:
                node.input[number] = sources[back.input[0]].input[0]
    for name in restored:
        model.graph.initializer.add().CopyFrom(originals[name])
        model.graph.initializer[-1].name = f"{name}/plain"
    return model if left else None
