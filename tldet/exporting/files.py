"""Writing of exported detectors; each file is written under a temporary name and renamed."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tldet.errors import ConfigError
from tldet.runtime.metadata import METADATA_KEY
from tldet.runtime.session import need
from tldet.system.locks import waiting_lock
from tldet.system.output import write_bytes

OPSET = 18
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "tensorrt": ".engine"}
_MAX_BYTES = 2 << 30  # size limit of an ONNX file (protobuf)
_SCOPES = "pkg.torch.onnx.name_scopes"  # key of the exporter: names of the enclosing modules, then of the node


def write_export(
    format: str,
    program: torch.export.ExportedProgram,
    path: Path,
    names: tuple[Sequence[str], Sequence[str]],
    metadata: Mapping[str, Any],
) -> None:
    """Write a traced detector.

    Args:
        format: ``onnx``, ``openvino`` or ``torch``.
        program: the graph.
        path: output file; OpenVINO's weights are written to a ``.bin`` file next to it.
        names: names of the inputs, and of the outputs.
        metadata: JSON-compatible values stored in the file.

    Raises:
        ConfigError: a package is missing, or the format cannot represent the graph.
        OutputError: the file cannot be written.
    """
    if format == "torch":
        buffer = io.BytesIO()
        with quiet("torch.onnx"):
            torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": json.dumps(metadata)})
        write_bytes(path, buffer.getvalue())
    else:
        write_model(format_model(format, onnx_model(program, names)), path, metadata)


def exported_files(path: Path) -> list[Path]:
    """Return the files of an export; OpenVINO has a second one for the weights."""
    return [path, path.with_suffix(".bin")] if path.suffix == SUFFIXES["openvino"] else [path]


def format_model(format: str, model: Any) -> Any:
    """Convert an ONNX model to the format ``onnx`` or ``openvino``.

    Raises:
        ConfigError: a package is missing.
    """
    if format == "onnx":
        return model
    openvino = need("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(model.SerializeToString())
        return openvino.convert_model(source)


def write_model(model: Any, path: Path, metadata: Mapping[str, Any]) -> None:
    """Write an ONNX model or an OpenVINO model.

    Raises:
        ConfigError: the model does not fit the format.
        OutputError: the file cannot be written.
    """
    if path.suffix == SUFFIXES["openvino"]:
        _write_openvino(model, path, metadata)
        return
    onnx = import_module("onnx")
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    if model.ByteSize() >= _MAX_BYTES:
        raise ConfigError("the ONNX file would exceed 2 GiB; export with --precision fp16 or --format torch")
    onnx.checker.check_model(model)
    write_bytes(path, model.SerializeToString())


def onnx_model(program: torch.export.ExportedProgram, names: tuple[Sequence[str], Sequence[str]]) -> Any:
    """Convert a graph to an ONNX model of opset ``OPSET`` that contains the weights.

    Nodes are named by module and output, such as ``neck.lateral.0.0/conv2d_48``; each output is named like its node in
    ``program``.

    Raises:
        ConfigError: a package is missing, or an operator cannot be exported to ONNX.
    """
    for package in ("onnx", "onnxscript"):
        need(package, "onnx")
    from tldet.exporting.translations import table

    with quiet("torch.onnx", "onnxscript", "onnx_ir"):
        exported: Any = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(names[0]),
            output_names=list(names[1]),
            external_data=False,
            custom_translation_table=table(),
            verbose=False,
        )
    model = exported.model_proto
    for node in model.graph.node:
        scopes = [one.value for one in node.metadata_props if one.key == _SCOPES]
        modules = ast.literal_eval(scopes[0])[:-1] if scopes else []
        module = modules[-1].removeprefix("detector.") if modules else ""
        node.name = f"{module}/{node.output[0]}" if module else node.output[0]
    for entry in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del entry.metadata_props[:]  # contain local paths and line numbers
        entry.doc_string = ""
    return model


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Suppress warnings, and log messages below ERROR of the named loggers."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _write_openvino(model: Any, path: Path, metadata: Mapping[str, Any]) -> None:
    openvino = import_module("openvino")
    with tempfile.TemporaryDirectory() as folder:
        model.set_rt_info(json.dumps(metadata), [METADATA_KEY])
        target = Path(folder) / "model.xml"
        openvino.save_model(model, target, compress_to_fp16=False)
        with waiting_lock(path.with_name(f".{path.name}.lock")):  # the two files must be of one export
            write_bytes(path.with_suffix(".bin"), target.with_suffix(".bin").read_bytes())
            write_bytes(path, target.read_bytes())
