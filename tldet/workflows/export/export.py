"""``tldet export``: export a checkpoint to ONNX, OpenVINO or torch.export, and verify the file."""

from __future__ import annotations

import copy
import logging
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tldet.exporting.files import OPSET, SUFFIXES, write_export
from tldet.exporting.graph import INPUTS, GraphOptions, output_names, prepare_for_tracing, trace_graph
from tldet.exporting.verify import TOLERANCES, Comparison, compare_detections
from tldet.inference.runtimes.exported import ExportedDetector, load_exported
from tldet.models.detector import Detector
from tldet.models.postprocess import set_nms
from tldet.runtime.metadata import METADATA_VERSION
from tldet.system.inputs import file_hash
from tldet.system.output import check_output, make_folder
from tldet.transfer.restore import restore
from tldet.workflows.export.data import ExportData
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.requests import takes
from tldet.workflows.training.meta import versions

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
MAX_DROP = {"fp32": 0.001, "fp16": 0.003}
THRESHOLDS = ("score_thr", "nms_iou_thr", "nms_per_class", "max_per_img", "nms_pre", "nms_post")


@dataclass
class ExportResult:
    """Result of an export.

    Attributes:
        path: the file.
        comparison: comparison of the detections of file and checkpoint; None if not verified.
        before: AP of the checkpoint; None without a dataset.
        after: AP of the exported file; None without a dataset.
        passed: False if the file differs from the checkpoint by more than is allowed.
        reason: reason of a failed verification; empty if it passed.
    """

    path: Path
    comparison: Comparison | None = None
    before: float | None = None
    after: float | None = None
    passed: bool = True
    reason: str = ""


@takes(ExportRequest)
def export(request: ExportRequest) -> ExportResult:
    """Export a detector, and compare the file with the checkpoint on real images.

    Raises:
        TldetError: the checkpoint, an option or the images are invalid, a package is missing, or the file cannot be
            written.
    """
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
    exported = prepare_for_tracing(copy.deepcopy(detector), half=request.precision == "fp16")
    names = INPUTS, output_names(exported, options)
    metadata = _metadata(work, options, request.precision, result.before)
    write_export(request.format, trace_graph(exported, options), path, names, metadata)
    log.info("saved to %s (%.1f MB)", path, path.stat().st_size / 1e6)
    if work.verify:
        _verify(result, work, request)
    return result


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
    """Return the thresholds and limits of every part of a head, by the name of the part."""
    found = {}
    for name, module in head.named_modules():
        settings = getattr(module, "settings", None)
        if is_dataclass(settings) and not isinstance(settings, type):
            values = {key: value for key, value in asdict(settings).items() if key in THRESHOLDS}
            if values:
                found[name or "head"] = values
    return found


def _verify(result: ExportResult, work: ExportData, request: ExportRequest) -> None:
    """Compare the file with the checkpoint, and evaluate it if there is a dataset."""
    exported = load_exported(result.path)
    max_drop = MAX_DROP[request.precision] if request.max_drop is None else request.max_drop
    tolerance, comparison = TOLERANCES[request.precision], Comparison()
    with torch.inference_mode():
        for batch in work.batches():
            fitted = exported.fitted(batch)
            fitted.original_sizes = fitted.sizes  # so that boxes are in pixels of the input
            compare_detections(work.detector.predict(fitted), exported.predict(fitted), tolerance, comparison)
    result.comparison = comparison
    log.info("%s: %s", exported.name, comparison.describe())
    if comparison.fraction < tolerance.matched:
        result.passed = False
        result.reason = f"only {comparison.describe()}; at least {tolerance.matched:.0%} must be"
    if work.dataset is None:
        return
    result.after = work.average_precision(exported)
    assert result.before is not None
    _show(result, exported, request.console)
    if result.before - result.after > max_drop:
        drop = f"AP drops by {result.before - result.after:.4f} (allowed: {max_drop:g})"
        result.passed, result.reason = False, f"{drop}; {_cause(exported, comparison, tolerance.matched)}"


def _cause(exported: ExportedDetector, comparison: Comparison, least: float) -> str:
    """Return the cause of a drop: the graph, or the fixed input size, to which other images are resized."""
    if comparison.fraction >= least and exported.size is not None:
        return "the detections agree on equal inputs, so the cause is the fixed input size: try --dynamic size"
    return "the detections differ on equal inputs, so the cause is the graph"


def _show(result: ExportResult, exported: ExportedDetector, console: Console | None) -> None:
    if console is None:
        return
    from rich.table import Table

    table = Table("", "AP", title=result.path.name)
    table.add_row("checkpoint (torch fp32)", f"{result.before:.4f}")
    table.add_row(exported.name, f"{result.after:.4f}")
    console.print(table)
