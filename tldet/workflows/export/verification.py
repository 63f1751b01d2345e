"""Verification of an exported file against its checkpoint."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from tldet.exporting.graph import GraphOptions
from tldet.exporting.stages import find_divergence
from tldet.exporting.verify import TOLERANCES, Comparison, compare_detections, detection_distance
from tldet.inference.runtimes.exported import ExportedDetector, load_exported
from tldet.structures.batch import Batch
from tldet.workflows.export.data import ExportData
from tldet.workflows.export.request import ExportRequest
from tldet.workflows.export.result import ExportResult

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


def verify(result: ExportResult, work: ExportData, request: ExportRequest, options: GraphOptions, limit: float) -> None:
    """Compare a file with its checkpoint on images, and evaluate it if there is a dataset.

    Args:
        result: receives the outcome; AP is not computed again if ``after`` is already set.
        work: the checkpoint and the images.
        request: arguments of the export.
        options: inputs and outputs of the graph.
        limit: maximum allowed drop in AP.
    """
    exported = load_exported(result.path)
    tolerance = TOLERANCES[request.precision]
    comparison, worst = _compare(work, exported, request.precision)
    result.comparison = comparison
    log.info("%s: %s", exported.name, comparison.describe())
    same = comparison.fraction >= tolerance.matched
    if not same:
        result.fail(f"only {comparison.describe()}; at least {tolerance.matched:.0%} must match")
    if result.before is not None:
        result.after = work.average_precision(exported) if result.after is None else result.after
        _show(result, exported, request.console)
        if result.before - result.after > limit:
            result.fail(f"AP drops by {result.before - result.after:.4f} (limit: {limit:g})")
    if result.passed:
        return
    if same and exported.size is not None and request.precision != "int8":
        result.fail("detections match on equal inputs, so the fixed input size is the cause; use --dynamic size")
    elif worst is not None and result.path.suffix != ".engine":
        half = request.precision == "fp16"
        result.fail(find_divergence(result.path, work.detector, exported, worst, options, half=half).describe())


def _compare(work: ExportData, exported: ExportedDetector, precision: str) -> tuple[Comparison, Batch | None]:
    """Compare the detections on the verification images; also return the image on which they differ most."""
    comparison, worst, largest = Comparison(), None, -1.0
    with torch.inference_mode():
        for batch in work.batches():
            fitted = exported.fitted(batch)
            fitted.original_sizes = fitted.sizes  # boxes in pixels of the network input
            expected, found = work.detector.predict(fitted), exported.predict(fitted)
            compare_detections(expected, found, TOLERANCES[precision], comparison)
            distance = detection_distance(expected, found)
            if distance > largest:
                worst, largest = fitted, distance
    return comparison, worst


def _show(result: ExportResult, exported: ExportedDetector, console: Console | None) -> None:
    if console is None:
        return
    from rich.table import Table

    table = Table("", "AP", title=result.path.name)
    table.add_row("checkpoint (torch fp32)", f"{result.before:.4f}")
    table.add_row(exported.name, f"{result.after:.4f}")
    console.print(table)
