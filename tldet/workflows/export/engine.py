"""TensorRT engines of detectors; without TensorRT, a check of the ONNX file that an engine is built from."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from tldet.errors import ConfigError
from tldet.exporting.files import write_model
from tldet.exporting.tensorrt import PARSER, build_engine, missing_requirement, unsupported_operators
from tldet.system.output import write_bytes
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.export.result import ExportResult

log = logging.getLogger(__name__)


def check_engine(request: ExportRequest) -> None:
    """Check the options of an engine.

    Raises:
        ConfigError: a dynamic axis is requested.
    """
    if request.format == "tensorrt" and request.dynamic:
        raise ConfigError("--dynamic: a TensorRT engine is built for one image of a fixed size; export without it")


def write_tensorrt(model: Any, metadata: Mapping[str, Any], result: ExportResult) -> None:
    """Write the engine of an ONNX model, or the model itself if no engine can be built here.

    Args:
        model: the ONNX model.
        metadata: metadata of the file.
        result: its path becomes that of the ONNX file if no engine is built, and it fails if the model has operators
            that TensorRT does not support.
    """
    if not (missing := missing_requirement()):
        write_bytes(result.path, build_engine(model.SerializeToString()))
        write_bytes(result.path.with_suffix(".json"), json.dumps(metadata).encode())
        return
    result.path = result.path.with_suffix(".onnx")
    write_model(model, result.path, metadata)
    log.warning("TensorRT was not tried (%s): no engine is built, the ONNX file is saved instead", missing)
    if unsupported := unsupported_operators(model):
        result.fail(f"the parser of {PARSER} does not support these operators: {', '.join(unsupported)}")
    else:
        kinds = len({node.op_type for node in model.graph.node})
        log.info("the parser of %s supports all %d kinds of operators of the ONNX file", PARSER, kinds)
