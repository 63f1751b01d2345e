"""``tldet compare``: comparison of detectors on the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tldet.errors import DataError
from tldet.evaluation.errors.analysis import Analysis, analyze
from tldet.evaluation.errors.images import image_f1
from tldet.evaluation.errors.tide import MEANINGS, TYPES
from tldet.evaluation.paired import Paired, compare_matches
from tldet.evaluation.report import defined
from tldet.evaluation.resample import RECALLS
from tldet.text import counted
from tldet.visualize.page.document import Section
from tldet.visualize.page.gallery import gallery
from tldet.visualize.page.plots import Plot, Series
from tldet.visualize.page.tables import Table
from tldet.workflows.report.command import check_outputs, write
from tldet.workflows.report.images import gallery_images, image_name
from tldet.workflows.report.report import Report
from tldet.workflows.report.request import CompareRequest
from tldet.workflows.report.sections import precision_recall_plot
from tldet.workflows.report.source import DetectionSource, of_checkpoint, of_results
from tldet.workflows.requests import takes

_CHANGED, _DRAWN = 100, 48  # maximum number of images in the table and in the gallery


@dataclass(frozen=True)
class _Side:
    """One of the compared detectors."""

    name: str
    source: DetectionSource
    found: Analysis


@takes(CompareRequest)
def compare(request: CompareRequest) -> Report:
    """Compare detectors on the same images: differences of AP with confidence intervals, and the most affected images.

    Raises:
        TldetError: a checkpoint, an annotation file or a results file is invalid, the detectors were not evaluated on
            the same images and classes, or an output cannot be written.
    """
    check_outputs(request, [*request.detectors, request.gt, request.data], [])
    sources = [of_results(one, request) if request.gt else of_checkpoint(one, request) for one in request.detectors]
    for one in sources[1:]:
        _require_same(sources[0], one)
    names = _names(request.detectors)
    sides = [_Side(name, one, analyze(one.truth, one.results)) for name, one in zip(names, sources, strict=True)]
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
        what = "different classes" if a.type == b.type else "a different detection type (boxes or masks)"
        raise DataError(f"{other.name}: has {what} than {first.name}; compare results files with --gt instead")


def _report(sides: Sequence[_Side]) -> Report:
    first = sides[0]
    pairs = [(one, _paired(first.found, one.found)) for one in sides[1:]]
    lines = [paired.verdict(first.name, one.name) for one, paired in pairs]
    sections = [
        Section("Summary", lines, [_summary(sides, pairs)], [_ap_plot(sides)]),
        _classes(first, pairs),
        _errors(sides),
        _curves(sides),
        *(_changed(first, one, number == 1, len(pairs)) for number, (one, _) in enumerate(pairs, 1)),
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


def _summary(sides: Sequence[_Side], pairs: Sequence[tuple[_Side, Paired]]) -> Table:
    rows: list[list[Any]] = []
    differences: list[Paired | None] = [None, *(paired for _, paired in pairs)]
    for one, paired in zip(sides, differences, strict=True):
        found, ends = one.found, one.found.interval
        f1 = found.overall.at(found.threshold)[2]
        apart = [None] * 4 if paired is None else [*_numbers(paired.overall), paired.p]
        rows.append([one.name, defined(found.coco.AP), ends.low, ends.high, defined(found.coco.AP50), f1, *apart])
    columns = ("detector", "AP", "AP low", "AP high", "AP50", "F1", "difference", "low", "high", "p")
    note = (
        "Low and high are the ends of 95 % bootstrap intervals over images. The difference is that of AP to the first "
        "detector, paired by image; p is the p-value of a randomization test that swaps the detectors on each image. "
        "F1 is that at the best score threshold of each detector."
    )
    return Table("comparison", "Detectors", columns, rows, note)


def _numbers(one: Any) -> list[float | None]:
    return [None] * 3 if one is None else [one.mean, one.low, one.high]


def _ap_plot(sides: Sequence[_Side]) -> Plot:
    ends = [one.found.interval for one in sides]
    values = [max(one.found.coco.AP, 0.0) for one in sides]
    low, high = (
        [value if end is None else end for value, end in zip(values, side, strict=True)]
        for side in ([one.low for one in ends], [one.high for one in ends])
    )
    series = [Series("", [one.name for one in sides], values, low, high)]
    note = (
        "Error bars: 95 % intervals over images. They may overlap even if the paired difference of two detectors is "
        "significant."
    )
    return Plot("detectors", "AP by detector", "AP (0 to 1)", "", series, "bars", xlim=(0, 1), note=note)


def _classes(first: _Side, pairs: Sequence[tuple[_Side, Paired]]) -> Section:
    """Return the AP of each class and its difference."""
    tables = []
    for number, (one, paired) in enumerate(pairs, 1):
        rows: list[list[Any]] = []
        for k, name in enumerate(first.found.truth.class_names):
            before, after = (defined(side.found.coco.per_class[name]) for side in (first, one))
            apart = paired.classes[k]
            rows.append([name, int(first.found.matches[k].objects.sum()), before, after, *_numbers(apart)])
        columns = ("class", "objects", first.name, one.name, "difference", "low", "high")
        tables.append(Table(f"classes_{number}", f"AP by class, {one.name}", columns, rows))
    return Section("Classes", tables=tables)


def _errors(sides: Sequence[_Side]) -> Section:
    """Return the AP lost to each type of error."""
    lost = [one.found.tide.overall for one in sides]
    series = [Series(one.name, TYPES, [own[name] for name in TYPES]) for one, own in zip(sides, lost, strict=True)]
    plot = Plot("tide", "AP50 lost to each type of error", "AP lost (0 to 1)", "", series, "bars")
    rows: list[list[Any]] = [[one.name, *(own[name] for name in TYPES)] for one, own in zip(sides, lost, strict=True)]
    return Section("Errors", tables=[Table("tide", "AP50 lost", ("detector", *TYPES), rows)], plots=[plot])


def _curves(sides: Sequence[_Side]) -> Section:
    """Return precision by recall and F1 by score threshold."""
    limits: dict[str, Any] = {"xlim": (0, 1), "ylim": (0, 1.02)}
    precision, f1 = [], []
    for one in sides:
        there = [curve.interpolated() for curve in one.found.curves if curve.objects]
        precision.append(Series(one.name, RECALLS, np.mean(there or [np.zeros(len(RECALLS))], 0)))
        thresholds, _, _, values = one.found.overall.sampled()
        f1.append(Series(one.name, thresholds, values))
    plots = [
        precision_recall_plot(precision),
        Plot("f1", "F1 by score threshold, all classes", "score threshold (0 to 1)", "F1 (0 to 1)", f1, **limits),
    ]
    return Section("Curves", plots=plots)


def _changed(first: _Side, one: _Side, drawn: bool, count: int) -> Section:
    """Return the images with the largest change in F1, each detector at its best score threshold."""
    before, after = (image_f1(side.found.assigned, side.found.threshold) for side in (first, one))
    change = after - before
    order = np.argsort(-np.abs(change), kind="stable")
    order = order[change[order] != 0]
    rows: list[list[Any]] = [
        [image_name(one.found, rank), float(before[rank]), float(after[rank]), float(change[rank])]
        for rank in order[:_CHANGED].tolist()
    ]
    name = "images" if count == 1 else f"images_{one.name}"
    note = "F1 of an image at the best score threshold of each detector."
    table = Table(name, "Images with the largest change in F1", ("image", first.name, one.name, "change"), rows, note)
    title = "Images" if count == 1 else f"Images, {one.name}"
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    text = [f"F1 is higher than that of {first.name} on {counted(better, 'image')}, and lower on {worse:,}."]
    if not drawn or not len(order):
        return Section(title, text, [table])
    shown = gallery_images(one.found, order[:_DRAWN], one.source.read)
    meanings = {kind: MEANINGS[kind] for kind in TYPES}
    html = gallery(shown, one.found.truth.class_names, meanings, round(one.found.threshold, 2))
    return Section(title, [*text, f"Left: ground truth. Right: detections of {one.name}."], [table], html=html)
