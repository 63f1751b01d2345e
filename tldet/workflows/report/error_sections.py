"""Sections of a report on the errors of one detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tldet.evaluation.columns import Ints
from tldet.evaluation.errors.analysis import Analysis
from tldet.evaluation.errors.confusion import confusions
from tldet.evaluation.errors.tide import MEANINGS, ORACLES, TYPES
from tldet.evaluation.report import defined
from tldet.visualize.page.document import Section
from tldet.visualize.page.plots import Plot, Series
from tldet.visualize.page.tables import Table

ATTRIBUTE_UNITS = {
    "size": "square root of the area (px)",
    "aspect ratio": "width / height",
    "crowding": "largest IoU with another object",
}
_BY_CLASS = "False positives count for the predicted class, missed objects for their own."


def tide_section(found: Analysis) -> Section:
    """Return the AP lost to each type of error."""
    overall = found.tide.overall
    rows: list[list[Any]] = [[n, overall[n], int(found.tide.counts[n].sum()), MEANINGS[n]] for n in TYPES]
    rows += [
        ["FP", overall["FP"], None, "all false positives"],
        ["FN", overall["FN"], None, "all objects without a matching detection"],
    ]
    columns = ["class", "AP50", *(f"{name} AP" for name in (*TYPES, *ORACLES)), *(f"{name} errors" for name in TYPES)]
    per_class: list[list[Any]] = []
    for k, name in enumerate(found.truth.class_names):
        lost = [max(float(found.tide.lost[kind][k]), 0.0) for kind in (*TYPES, *ORACLES)]
        ap = float(found.tide.ap[k])
        lost_or_none = [value if ap == ap else None for value in lost]
        counts = [int(found.tide.counts[kind][k]) for kind in TYPES]
        per_class.append([name, ap, *lost_or_none, *counts])
    plot = Plot(
        "tide",
        "AP50 lost to each type of error",
        "AP lost (0 to 1)",
        "type of error",
        [Series("", TYPES, [overall[name] for name in TYPES])],
        "bars",
    )
    note = (
        "AP lost: gain in AP at IoU 0.5 if all errors of the type were corrected (TIDE, Bolya et al. 2020). The values "
        "do not add up to 1 - AP."
    )
    tables = [
        Table("tide", "Errors", ("type", "AP lost", "errors", "meaning"), rows, note),
        Table("tide_classes", "AP lost and errors by class", columns, per_class, _BY_CLASS),
    ]
    return Section("Errors", tables=tables, plots=[plot])


def confusion_section(found: Analysis) -> Section:
    """Return the confusion matrix and the most frequent confusions."""
    names, matrix, used = _used(found)
    plot = confusion_plot(found, "confusion", "Confusion matrix, fraction of the objects of each class")
    rows: list[list[Any]] = [[names[row], names[column], count] for row, column, count in confusions(matrix, 20)]
    full = [[names[k], *matrix[k].tolist()] for k in used]
    tables = [
        Table("confusions", "Most frequent confusions", ("object", "detected as", "count"), rows),
        Table("confusion", "Confusion matrix, counts (rows: class of the object)", ("object", *names), full),
    ]
    text = [f"Detections with a score of at least {found.threshold:.2f}, matched at IoU 0.5."]
    return Section("Confusion", text, tables, [plot])


def confusion_plot(found: Analysis, name: str, title: str) -> Plot:
    """Return the confusion matrix as fractions of its rows, with the classes that occur."""
    names, matrix, used = _used(found)
    fractions = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    shown = [names[k] for k in used]
    series = [Series(names[k], shown, fractions[k][used]) for k in used]
    return Plot(name, title, "class of the detection", "class of the object", series, "matrix")


def _used(found: Analysis) -> tuple[list[str], Ints, Ints]:
    """Return the names of classes and background, the confusion matrix, and the rows of classes that occur."""
    matrix = found.confusion
    used = np.flatnonzero(np.append((matrix.sum(0) + matrix.sum(1))[:-1], 1))
    return [*found.truth.class_names, "background"], matrix, used


def attributes_section(found: Analysis) -> Section:
    """Return AP by object size, aspect ratio and crowding."""
    plots, tables = [], []
    for name, one in found.attributes.items():
        file = name.replace(" ", "_")
        ap, ap50 = ([defined(value) or 0.0 for value in values] for values in (one.ap, one.ap50))
        series = [Series("AP", one.names, ap), Series("AP50", one.names, ap50)]
        plots.append(
            Plot(f"ap_by_{file}", f"AP by {name}", "AP (0 to 1)", ATTRIBUTE_UNITS[name], series, "bars", xlim=(0, 1))
        )
        values = zip(one.names, one.objects.tolist(), one.ap, one.ap50, one.ar, strict=True)
        rows = [[label, count, *(defined(v) for v in numbers)] for label, count, *numbers in values]
        tables.append(
            Table(f"ap_by_{file}", f"AP by {name}", (ATTRIBUTE_UNITS[name], "objects", "AP", "AP50", "AR100"), rows)
        )
    return Section("Size, shape and crowding", tables=tables, plots=plots)


def calibration_section(found: Analysis) -> Section:
    """Return the reliability diagram and the temperature."""
    before, after = found.calibration, found.calibrated
    middles = (before.edges[:-1] + before.edges[1:]) / 2
    series = [
        Series("scores", before.confidence, before.accuracy, marker="o"),
    ]
    text = [
        f"Expected calibration error {before.ece:.3f}, maximum calibration error {before.mce:.3f}. A detection is "
        "correct if it matches an object at IoU 0.5."
    ]
    if after is not None and found.temperature is not None:
        series.append(Series("after temperature scaling", after.confidence, after.accuracy, marker="s"))
        text.append(
            f"With temperature {found.temperature:.3f}, fitted on these images, the expected calibration error is "
            f"{after.ece:.3f}."
        )
    plot = reliability_plot(series)
    counts = Plot(
        "score_histogram",
        "Detections by score",
        "score (0 to 1)",
        "detections",
        [Series("", middles, before.counts, marker="o")],
        xlim=(0, 1),
        ylim=(0, 1.05 * max(int(before.counts.max()), 1)),
    )
    values = zip(before.edges, before.edges[1:], before.counts, before.confidence, before.accuracy, strict=False)
    rows = [[float(low), float(high), int(n), float(c), float(a)] for low, high, n, c, a in values]
    columns = ("score from", "score to", "detections", "mean score", "fraction correct")
    return Section("Calibration", text, [Table("calibration", "Calibration", columns, rows)], [plot, counts])


def reliability_plot(series: Sequence[Series]) -> Plot:
    """Return the reliability diagram, with the line of perfect calibration."""
    return Plot(
        "reliability",
        "Fraction of correct detections by score",
        "mean score of the bin (0 to 1)",
        "fraction of correct detections (0 to 1)",
        [Series("ideal", [0, 1], [0, 1]), *series],
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
