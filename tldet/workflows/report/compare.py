"""``tldet compare``: comparison of detectors on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tldet.errors import DataError
from tldet.evaluation.errors.analysis import Analysis, analyze
from tldet.evaluation.paired import Paired, compare_matches
from tldet.evaluation.report import defined
from tldet.system.output_checks import check_outputs
from tldet.text import counted
from tldet.visualize.page.document import Section
from tldet.workflows.report.command import write
from tldet.workflows.report.compare_images import changed_section
from tldet.workflows.report.compare_sections import (
    Side,
    ap_plot,
    compared_attributes,
    compared_calibration,
    compared_classes,
    compared_confusion,
    compared_curves,
    compared_errors,
    summary_table,
)
from tldet.workflows.report.report import Report
from tldet.workflows.report.request import CompareRequest
from tldet.workflows.report.source import DetectionSource, of_checkpoint, of_results
from tldet.workflows.requests import takes


@takes(CompareRequest)
def compare(request: CompareRequest) -> Report:
    """Compare detectors on the same images: differences of AP with confidence intervals, and the most affected images.

    Raises:
        TldetError: a checkpoint, an annotation file or a results file is invalid, the detectors were not evaluated on
            the same images and classes, or an output cannot be written.
    """
    inputs = [*request.detectors, request.gt, request.data]
    check_outputs([request.out, request.json], inputs, overwrite=request.overwrite, folders=[request.tables])
    sources = [of_results(one, request) if request.gt else of_checkpoint(one, request) for one in request.detectors]
    for one in sources[1:]:
        _require_same(sources[0], one)
    names = _names(request.detectors)
    sides = [Side(name, one, analyze(one.truth, one.results)) for name, one in zip(names, sources, strict=True)]
    made = _report(sides)
    write(made, request)
    if request.console:
        lines = [*made.sections[0].text, f"saved to {request.out}"]
        request.console.print(*lines, sep="\n", markup=False, highlight=False)
    return made


def _names(detectors: Sequence[Any]) -> list[str]:
    """Return a unique name for each detector: the file names, or the paths if file names are equal."""
    short = [Path(str(one)).name if isinstance(one, (str, Path)) else "detections" for one in detectors]
    long = [str(one) if isinstance(one, (str, Path)) else "detections" for one in detectors]
    names = short if len(set(short)) == len(short) else long
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]


def _require_same(first: DetectionSource, other: DetectionSource) -> None:
    """Reject detectors on different images or classes.

    Raises:
        DataError: they differ.
    """
    a, b = first.truth, other.truth
    if list(a.image_ids) != list(b.image_ids):
        raise DataError(
            f"{other.name}: is evaluated on different images than {first.name}; choose the images with --data"
        )
    if list(a.class_names) != list(b.class_names) or a.type != b.type:
        what, instead = "different classes", "compare results files with --gt instead"
        if a.type != b.type:
            what, instead = "a different detection type (boxes or masks)", "use --type bbox to compare boxes"
        raise DataError(f"{other.name}: has {what} than {first.name}; {instead}")


def _report(sides: Sequence[Side]) -> Report:
    first = sides[0]
    pairs = [(one, _paired(first.found, one.found)) for one in sides[1:]]
    lines = [paired.verdict(first.name, one.name) for one, paired in pairs]
    sections = [
        Section("Summary", lines, [summary_table(sides, pairs)], [ap_plot(sides)]),
        compared_classes(first, pairs),
        compared_errors(sides),
        compared_confusion(sides),
        compared_attributes(sides),
        compared_curves(sides),
        compared_calibration(sides),
        changed_section(sides),
    ]
    summary: dict[str, float | None] = {one.name: defined(one.found.coco.AP) for one in sides}
    for one, paired in pairs:
        summary |= {f"{one.name} - {first.name}": paired.overall.mean, f"p {one.name} - {first.name}": paired.p}
    truth = first.found.truth
    where = f"{truth.name}: {counted(len(truth.image_ids), 'image')}, {counted(len(truth.images), 'object')}"
    return Report(f"Comparison of {', '.join(one.name for one in sides)}", where, summary, sections)


def _paired(first: Analysis, other: Analysis) -> Paired:
    ap = [np.array(list(one.coco.per_class.values())) for one in (first, other)]
    return compare_matches(first.matches, other.matches, (first.samples, other.samples), (ap[0], ap[1]))
