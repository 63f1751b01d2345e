"""Sections of a comparison: the same tables and plots as in a report, with a column or a line for each detector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tldet.evaluation.errors.analysis import Analysis
from tldet.evaluation.errors.confusion import confusions
from tldet.evaluation.errors.tide import TYPES
from tldet.evaluation.paired import Paired
from tldet.evaluation.report import defined
from tldet.evaluation.resample import RECALLS
from tldet.visualize.page.document import Section
from tldet.visualize.page.plots import Plot, Series
from tldet.visualize.page.tables import Table
from tldet.workflows.report.error_sections import ATTRIBUTE_UNITS, confusion_plot, reliability_plot
from tldet.workflows.report.sections import precision_recall_plot
from tldet.workflows.report.source import DetectionSource

_CONFUSIONS = 20  # most frequent confusions of each detector in the table


@dataclass(frozen=True)
class Side:
    """One of the compared detectors."""

    name: str
    source: DetectionSource
    found: Analysis


def summary_table(sides: Sequence[Side], pairs: Sequence[tuple[Side, Paired]]) -> Table:
    """Return the AP of each detector, and its difference to the first one."""
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


def ap_plot(sides: Sequence[Side]) -> Plot:
    """Return the AP of each detector with its interval."""
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
    return Plot("detectors", "AP by detector", "AP (0 to 1)", "detector", series, "bars", xlim=(0, 1), note=note)


def compared_classes(first: Side, pairs: Sequence[tuple[Side, Paired]]) -> Section:
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


def compared_errors(sides: Sequence[Side]) -> Section:
    """Return the AP lost to each type of error."""
    lost = [one.found.tide.overall for one in sides]
    series = [Series(one.name, TYPES, [own[name] for name in TYPES]) for one, own in zip(sides, lost, strict=True)]
    plot = Plot("tide", "AP50 lost to each type of error", "AP lost (0 to 1)", "type of error", series, "bars")
    rows: list[list[Any]] = [[one.name, *(own[name] for name in TYPES)] for one, own in zip(sides, lost, strict=True)]
    return Section("Errors", tables=[Table("tide", "AP50 lost", ("detector", *TYPES), rows)], plots=[plot])


def compared_curves(sides: Sequence[Side]) -> Section:
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


def compared_confusion(sides: Sequence[Side]) -> Section:
    """Return the most frequent confusions of all detectors, and the confusion matrix of each."""
    frequent = [(row, column) for one in sides for row, column, _ in confusions(one.found.confusion, _CONFUSIONS)]
    pairs = sorted(dict.fromkeys(frequent), key=lambda pair: -max(int(one.found.confusion[pair]) for one in sides))
    names = sides[0].found.truth.class_names
    rows: list[list[Any]] = [
        [names[row], names[column], *(int(one.found.confusion[row, column]) for one in sides)] for row, column in pairs
    ]
    columns = ("object", "detected as", *(one.name for one in sides))
    plots = [
        confusion_plot(one.found, f"confusion_{number}", f"Confusion matrix, {one.name}")
        for number, one in enumerate(sides, 1)
    ]
    text = "Detections at or above the best score threshold of each detector, matched at IoU 0.5."
    return Section("Confusion", [text], [Table("confusions", "Most frequent confusions", columns, rows)], plots)


def compared_attributes(sides: Sequence[Side]) -> Section:
    """Return AP by object size, aspect ratio and crowding."""
    tables, plots = [], []
    for name, unit in ATTRIBUTE_UNITS.items():
        found = [one.found.attributes[name] for one in sides]
        ap = [[defined(value) for value in one.ap] for one in found]
        rows = [[*row] for row in zip(found[0].names, found[0].objects.tolist(), *ap, strict=True)]
        file, title = f"ap_by_{name.replace(' ', '_')}", f"AP by {name}"
        tables.append(Table(file, title, (unit, "objects", *(one.name for one in sides)), rows))
        series = [
            Series(one.name, found[0].names, [value or 0.0 for value in own])
            for one, own in zip(sides, ap, strict=True)
        ]
        plots.append(Plot(file, title, "AP (0 to 1)", unit, series, "bars", xlim=(0, 1)))
    return Section("Size, shape and crowding", tables=tables, plots=plots)


def compared_calibration(sides: Sequence[Side]) -> Section:
    """Return the calibration errors of each detector, and their reliability diagrams."""
    rows: list[list[Any]] = []
    for one in sides:
        before, after = one.found.calibration, one.found.calibrated
        rows.append([one.name, before.ece, before.mce, one.found.temperature, None if after is None else after.ece])
    columns = ("detector", "expected error", "maximum error", "temperature", "expected error with temperature")
    note = "The temperature is fitted on these images."
    curves = [
        Series(one.name, one.found.calibration.confidence, one.found.calibration.accuracy, marker="o") for one in sides
    ]
    return Section(
        "Calibration",
        tables=[Table("calibration", "Calibration errors", columns, rows, note)],
        plots=[reliability_plot(curves)],
    )
