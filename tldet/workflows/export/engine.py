"""Export of TensorRT engines; without TensorRT, a check of the ONNX file from which an engine would be built."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from tldet.errors import ConfigError
from tldet.exporting.files import write_model
from tldet.exporting.tensorrt import PARSER, build_engine, missing_requirement, unsupported_operators
from tldet.system.output import write_bytes
from tldet.text import counted
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.export.result import ExportResult

log = logging.getLogger(__name__)


def check_engine(request: ExportRequest) -> None:
    """Check the options for an engine.

    Raises:
        ConfigError: a dynamic axis is requested.
    """
    if request.format == "tensorrt" and request.dynamic:
        raise ConfigError("--dynamic is not available for TensorRT: engines take one image of a fixed size")


def write_tensorrt(model: Any, metadata: Mapping[str, Any], result: ExportResult) -> None:
    """Build and write an engine, or write the ONNX model if TensorRT or a GPU is missing.

    Args:
        model: the ONNX model.
        metadata: metadata of the file.
        result: receives the path of the ONNX file if no engine is built, and a failure if the model has operators that
            TensorRT does not support.
    """
    if not (missing := missing_requirement()):
        write_bytes(result.path, build_engine(model.SerializeToString()))
        write_bytes(result.path.with_suffix(".json"), json.dumps(metadata).encode())
        return
    result.path = result.path.with_suffix(".onnx")
    write_model(model, result.path, metadata)
    log.warning("no TensorRT engine built (%s); saving the ONNX file instead", missing)
    if unsupported := unsupported_operators(model):
        result.fail(f"{PARSER} does not support these ONNX operators: {', '.join(unsupported)}")
    else:
        kinds = len({node.op_type for node in model.graph.node})
        log.info("%s supports all %s in the ONNX file", PARSER, counted(kinds, "operator type"))
