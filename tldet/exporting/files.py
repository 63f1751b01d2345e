"""Writing of exported detectors; each file is written under a temporary name and renamed."""

from __future__ import annotations

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
from tldet.system.output import write_bytes

OPSET = 18
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
_LARGEST = 2 << 30  # bytes of an ONNX file (protobuf)


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
        names: names of inputs and outputs.
        metadata: plain values that are stored in the file.

    Raises:
        ConfigError: a package is missing, or the format cannot represent the graph.
        OutputError: the file cannot be written.
    """
    if format == "torch":
        buffer = io.BytesIO()
        with _quiet():
            torch.export.save(program, buffer, extra_files={f"{METADATA_KEY}.json": json.dumps(metadata)})
        write_bytes(path, buffer.getvalue())
        return
    content = onnx_bytes(program, names, metadata)
    if format == "onnx":
        write_bytes(path, content)
    else:
        _write_openvino(content, path, metadata)


def onnx_bytes(
    program: torch.export.ExportedProgram, names: tuple[Sequence[str], Sequence[str]], metadata: Mapping[str, Any]
) -> bytes:
    """Return a graph as an ONNX file of opset ``OPSET``, with its weights inside.

    Raises:
        ConfigError: a package is missing, an operator cannot be exported to ONNX, or the file would exceed 2 GiB.
    """
    for package in ("onnx", "onnxscript"):
        need(package, "onnx")
    from tldet.exporting.translations import table

    onnx = import_module("onnx")
    with _quiet():
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
    for entry in (*model.graph.node, *model.graph.value_info, *model.graph.input, *model.graph.output):
        del entry.metadata_props[:]  # paths and line numbers of this machine
        entry.doc_string = ""
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(metadata)})
    if model.ByteSize() >= _LARGEST:
        raise ConfigError("the ONNX file would exceed 2 GiB; export with --precision fp16 or --format torch")
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the log messages and warnings of the exporter."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
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


def _write_openvino(content: bytes, path: Path, metadata: Mapping[str, Any]) -> None:
    openvino = need("openvino", "openvino")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(content)
        model = openvino.convert_model(source)
        model.set_rt_info(json.dumps(metadata), [METADATA_KEY])
        target = Path(folder) / "model.xml"
        openvino.save_model(model, target, compress_to_fp16=False)
        write_bytes(path.with_suffix(".bin"), target.with_suffix(".bin").read_bytes())
        write_bytes(path, target.read_bytes())
