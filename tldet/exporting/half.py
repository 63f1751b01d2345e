"""Half precision in ONNX files."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tldet.inference.runtimes.base import need

_PRODUCTS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_TRUNK = ("detector.backbone", "detector.neck")  # modules of the graph that compute in half precision throughout
_SCOPES = "pkg.torch.onnx.name_scopes"


def to_half(model: Any) -> Any:
    """Convert backbone, neck, and the convolutions and matrix products of the head to fp16.

    Inputs, outputs, normalization, the other operators of the head, decoding and NMS stay in fp32.

    Args:
        model: the ``onnx.ModelProto`` that torch's exporter returned, with its metadata of each node.

    Returns:
        The converted model.
    """
    need("onnxruntime", "onnx")
    converter = import_module("onnxruntime.transformers.float16")
    blocked = [node.name for node in model.graph.node if not _is_half(node)]
    return converter.convert_float_to_float16(model, keep_io_types=True, op_block_list=[], node_block_list=blocked)


def _is_half(node: Any) -> bool:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == _SCOPES), "")
    return node.op_type in _PRODUCTS or any(part in scopes for part in _TRUNK)
