"""Sections of a report: metrics, classes, curves and calibration of one detector."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from tldet.evaluation.errors.analysis import Analysis, interval
from tldet.evaluation.report import METRICS, defined
from tldet.evaluation.resample import RECALLS, class_ap, draws, mean_over_classes
from tldet.evaluation.statistics import FEW
from tldet.text import counted
from tldet.visualize.page.document import Section
from tldet.visualize.page.plots import Plot, Series
from tldet.visualize.page.tables import Table
from tldet.workflows.report.error_sections import (
    attributes_section,
    calibration_section,
    confusion_section,
    tide_section,
)

_CURVES, _BARS = 5, 12  # maximum number of classes in a plot of curves, and of bars
METRIC_MEANINGS = {
    "AP": "mean over IoU 0.50 to 0.95 and classes",
    "AP50": "at IoU 0.50",
    "AP75": "at IoU 0.75",
    "APs": "small objects: area below 32 x 32 px",
    "APm": "medium objects: area of 32 x 32 to 96 x 96 px",
    "APl": "large objects: area above 96 x 96 px",
    "AR1": "recall with at most 1 detection per class and image",
    "AR10": "recall with at most 10 detections per class and image",
    "AR100": "recall with at most 100 detections per class and image",
    "ARs": "recall of small objects",
    "ARm": "recall of medium objects",
    "ARl": "recall of large objects",
}


def summary_section(found: Analysis) -> Section:
    """Return the COCO metrics, AP, AP50 and AP75 with bootstrap intervals."""
    ranges = {"AP": found.interval, **_single_intervals(found)}
    rows: list[list[Any]] = []
    for name in METRICS:
        ends = ranges.get(name)
        low, high = (None, None) if ends is None else (ends.low, ends.high)
        rows.append([name, defined(getattr(found.coco, name)), low, high, METRIC_MEANINGS[name]])
    few = len(found.truth.image_ids) < FEW
    note = "Low and high: 95 % bootstrap interval over images." + (" Too few images for a reliable one." if few else "")
    table = Table("summary", "COCO metrics", ("metric", "value", "low", "high", "meaning"), rows, note)
    best = found.overall.at(found.threshold)
    cards = {
        f"AP {_ends(found.interval)}": defined(found.coco.AP),
        f"AP50 {_ends(ranges['AP50'])}": defined(found.coco.AP50),
        f"F1 at score threshold {found.threshold:.2f}": best[2],
        f"precision at {found.threshold:.2f}": best[0],
        f"recall at {found.threshold:.2f}": best[1],
    }
    html = "".join(f"<div><b>{_shown(value)}</b>{escape(name)}</div>" for name, value in cards.items())
    return Section("Summary", tables=[table], html=f'<div class="cards">{html}</div>')


def _single_intervals(found: Analysis) -> dict[str, Any]:
    """Return the intervals of AP50 and AP75."""
    weights, count = draws(len(found.truth.image_ids)), len(found.truth.image_ids)
    ranges = {}
    for name, level in (("AP50", 0), ("AP75", 5)):
        samples = np.array([class_ap(one.at(level), weights) for one in found.matches])
        mean = getattr(found.coco, name)
        ranges[name] = interval(mean_over_classes(samples.reshape(-1, len(weights))), mean, count)
    return ranges


def classes_section(found: Analysis) -> Section:
    """Return the table of classes."""
    columns = (
        "class",
        "objects",
        "images",
        "AP",
        "low",
        "high",
        "AP50",
        "score threshold",
        "precision",
        "recall",
        "F1",
    )
    rows: list[list[Any]] = []
    for k, name in enumerate(found.truth.class_names):
        objects, ends = found.matches[k].objects, found.class_interval(k)
        best = found.curves[k].best() or (None, None, None, None)
        ap, ap50 = defined(found.coco.per_class.get(name)), defined(found.coco.per_class_ap50.get(name))
        low, high = (None, None) if ap is None else (ends.low, ends.high)
        rows.append([name, int(objects.sum()), int((objects > 0).sum()), ap, low, high, ap50, *best])
    note = (
        "Low and high: 95 % bootstrap interval of AP over images. Precision, recall and F1 at the score threshold with "
        "the largest F1 of the class, at IoU 0.5."
    )
    frequent = sorted((row for row in rows if row[3] is not None), key=lambda row: -row[1])[:_BARS]
    frequent.sort(key=lambda row: -row[3])
    low_ends, high_ends = ([row[3] if row[side] is None else row[side] for row in frequent] for side in (4, 5))
    bars = Plot(
        "class_ap",
        "AP by class" + (f", the {_BARS} most frequent classes" if len(rows) > _BARS else ""),
        "AP (0 to 1)",
        "class",
        [Series("", [row[0] for row in frequent], [row[3] for row in frequent], low_ends, high_ends)],
        "bars",
        xlim=(0, 1),
        note="Error bars: 95 % intervals over images.",
    )
    return Section(
        "Classes", tables=[Table("classes", "Classes", columns, rows, note)], plots=[bars] if frequent else []
    )


def curves_section(found: Analysis) -> Section:
    """Return the precision-recall curve, and precision, recall and F1 by score threshold."""
    there = [one for one in found.curves if one.objects]
    if not there:
        return Section("Curves", ["No objects."])
    mean = np.mean([one.interpolated() for one in there], 0)
    thresholds, precision, recall, f1 = found.overall.sampled()
    best = found.overall.best()
    chosen = "no detection matches an object"
    if best is not None:
        chosen = f"largest F1 {best[3]:.3f} at score threshold {best[0]:.2f}"
    frequent = sorted(range(len(found.curves)), key=lambda k: -found.curves[k].objects)[:_CURVES]
    names = found.truth.class_names
    plots = [
        precision_recall_plot([Series("", RECALLS, mean)], f"Area under the curve: AP50 {float(mean.mean()):.3f}"),
        Plot(
            "score_thresholds",
            "Precision, recall and F1 by score threshold, all classes",
            "score threshold (0 to 1)",
            "value (0 to 1)",
            [
                Series("F1", thresholds, f1),
                Series("precision", thresholds, precision),
                Series("recall", thresholds, recall),
            ],
            xlim=(0, 1),
            ylim=(0, 1.02),
            note=chosen,
        ),
        Plot(
            "class_f1",
            "F1 by score threshold, most frequent classes",
            "score threshold (0 to 1)",
            "F1 (0 to 1)",
            [Series(names[k], thresholds, found.curves[k].sampled()[3]) for k in frequent],
            xlim=(0, 1),
            ylim=(0, 1.02),
        ),
    ]
    columns = np.column_stack([thresholds, precision, recall, f1]).tolist()
    table = Table("score_thresholds", "Score thresholds", ("score threshold", "precision", "recall", "F1"), columns)
    text = [f"All classes together, at IoU 0.5: {chosen}."]
    return Section("Curves", text, [table], plots)


def precision_recall_plot(series: Sequence[Series], note: str = "") -> Plot:
    """Return the plot of precision over recall, averaged over classes."""
    return Plot(
        "precision_recall",
        "Precision-recall curve, mean over classes, IoU 0.5",
        "recall (0 to 1)",
        "precision (0 to 1)",
        series,
        xlim=(0, 1),
        ylim=(0, 1.02),
        note=note,
    )


def accuracy_sections(found: Analysis) -> Sequence[Section]:
    """Return the sections on metrics and errors."""
    makers = (
        summary_section,
        classes_section,
        curves_section,
        tide_section,
        confusion_section,
        attributes_section,
        calibration_section,
    )
    return [make(found) for make in makers]


def subtitle(name: str, found: Analysis, split: str = "") -> str:
    """Return the subtitle of a report: detector, dataset with its split, and counts."""
    counts = (
        counted(len(found.truth.image_ids), "image"),
        counted(int((~found.truth.crowd).sum()), "object"),
        counted(len(found.results), "detection"),
        counted(len(found.truth.class_names), "class", "classes"),
    )
    kind = "masks" if found.truth.type == "segm" else "boxes"
    where = f"{found.truth.name} ({split} split)" if split else found.truth.name
    return f"{name} on {where}: {', '.join(counts)}; {kind}"


def _ends(one: Any) -> str:
    return "" if one.low is None else f"({one.ends()})"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
