"""``tldet export``: export a checkpoint to ONNX, OpenVINO, torch.export or TensorRT, and verify the file."""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from tldet.exporting.files import OPSET, SUFFIXES, exported_files, format_model, onnx_model, write_export, write_model
from tldet.exporting.graph import GraphOptions, output_names, prepare_for_tracing, trace_graph
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.runtime.metadata import METADATA_VERSION
from tldet.runtime.session import INPUTS
from tldet.system.inputs import file_hash
from tldet.system.output import make_folder
from tldet.system.output_checks import check_output
from tldet.transfer.restore import restore
from tldet.workflows.export.data import ExportData
from tldet.workflows.export.engine import check_engine, write_tensorrt
from tldet.workflows.export.quantization import check_int8, quantization_metadata, quantize
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.export.result import ExportResult
from tldet.workflows.export.verification import verify
from tldet.workflows.requests import takes
from tldet.workflows.training.meta import versions

log = logging.getLogger(__name__)
MAX_DROP = {"fp32": 0.001, "fp16": 0.003, "int8": 0.01}
THRESHOLDS = ("score_thr", "nms_iou_thr", "nms_per_class", "max_per_img", "nms_pre", "nms_post")


@takes(ExportRequest)
def export(request: ExportRequest) -> ExportResult:
    """Export a detector, and compare the file with the checkpoint on real images.

    Raises:
        TldetError: the checkpoint, an option or the images are invalid, a package is missing, or the file cannot be
            written.
    """
    check_int8(request)
    check_engine(request)
    path = _path(request)
    make_folder(path.parent)
    check_output(path)
    detector, state = _restored(request)
    work = ExportData(detector, state, request)
    size, dynamic = work.input_size(), (request.dynamic or "").split(",")
    options = GraphOptions(size, "batch" in dynamic, "size" in dynamic, request.raw)
    result = ExportResult(path)
    if work.dataset is not None:
        result.before = work.average_precision(detector)
    log.info("input %dx%d, format %s, precision %s", *size, request.format, request.precision)
    limit = MAX_DROP[request.precision] if request.max_drop is None else request.max_drop
    _write(result, work, request, options, limit)
    log.info(
        "saved to %s (%.1f MB)", result.path, sum(file.stat().st_size for file in exported_files(result.path)) / 1e6
    )
    if work.verify:
        verify(result, work, request, options, limit)
    return result


def _write(result: ExportResult, work: ExportData, request: ExportRequest, options: GraphOptions, limit: float) -> None:
    """Trace the detector and write the file."""
    detector = prepare_for_tracing(copy.deepcopy(work.detector), half=request.precision == "fp16")
    names = tuple(INPUTS), output_names(detector, options)
    metadata = _metadata(work, options, request.precision, result.before)
    program = trace_graph(detector, options)
    if request.format == "tensorrt":
        write_tensorrt(onnx_model(program, names), metadata, result)
    elif request.precision == "int8":
        found = quantize(format_model(request.format, onnx_model(program, names)), work, request, metadata, limit)
        result.quantization = quantization_metadata(found, work)
        write_model(found.model, result.path, {**metadata, "quantization": result.quantization})
        if result.before is not None:
            result.after = result.before - found.loss
        if not found.reached:
            result.fail(found.reason())
    else:
        write_export(request.format, program, result.path, names, metadata)


def _path(request: ExportRequest) -> Path:
    checkpoint = Path(request.checkpoint)
    name = checkpoint.stem + ("_raw" if request.raw else "") + SUFFIXES[request.format]
    return Path(request.out or checkpoint.parent) / name


def _restored(request: ExportRequest) -> tuple[Detector, dict[str, Any]]:
    detector, state = restore(request.checkpoint)
    if request.nms_per_class is not None:
        set_nms(detector, per_class=request.nms_per_class)
    return detector, state


def _metadata(work: ExportData, options: GraphOptions, precision: str, before: float | None) -> dict[str, Any]:
    head: Any = work.detector.head
    meta = work.state["meta"]
    masks = {"threshold": head.mask_threshold, "paste": head.mask_paste} if work.detector.predicts_masks else None
    return {
        "format": METADATA_VERSION,
        "kind": "raw" if options.raw else "detector",
        "class_names": list(meta["class_names"]),
        "category_ids": list(meta["category_ids"]),
        "input": dict(work.bounds),
        "size": None if options.dynamic_size else list(options.size),
        "batch": None if options.dynamic_batch else 1,
        "precision": precision,
        "head": type(head).__name__,
        "thresholds": _thresholds(head),
        "scores": meta.get("scores"),
        "masks": masks,
        "versions": versions(),
        "opset": OPSET,
        "checkpoint": work.checkpoint.name,
        "checkpoint_sha256": file_hash(work.checkpoint),
        "AP": before,
    }


def _thresholds(head: Any) -> dict[str, Any]:
    """Return the thresholds and limits of each module of a head, by module name."""
    found = {}
    for name, module in head.named_modules():
        settings = getattr(module, "settings", None)
        if is_dataclass(settings) and not isinstance(settings, type):
            values = {key: value for key, value in asdict(settings).items() if key in THRESHOLDS}
            if values:
                found[name or "head"] = values
    return found
