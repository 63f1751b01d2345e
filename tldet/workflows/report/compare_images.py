"""Images of a comparison: those on which F1 changes most, with the detections of every detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tldet.evaluation.columns import Floats, Ints
from tldet.evaluation.errors.images import image_f1
from tldet.text import counted
from tldet.visualize.page.document import Section
from tldet.visualize.page.gallery import gallery
from tldet.visualize.page.tables import Table
from tldet.workflows.report.compare_sections import Side
from tldet.workflows.report.images import SHOWN_MEANINGS, gallery_images, image_name

_CHANGED, _DRAWN = 100, 48  # maximum number of images in a table and in the gallery


def changed_section(sides: Sequence[Side]) -> Section:
    """Return the images with the largest change in F1, each detector at its best score threshold."""
    first, *others = sides
    before, *after = (image_f1(one.found.assigned, one.found.threshold) for one in sides)
    text = [_counts(first, one, values - before) for one, values in zip(others, after, strict=True)]
    pairs = enumerate(zip(others, after, strict=True), 1)
    tables = [_table(number, first, one, before, values) for number, (one, values) in pairs]
    ranks = most_changed([values - before for values in after])[:_DRAWN]
    if not len(ranks):
        return Section("Images", text, tables)
    shown = gallery_images([one.found for one in sides], ranks, first.source.read)
    thresholds = {one.name: one.found.threshold for one in sides}
    text.append(
        f"The {counted(len(ranks), 'image')} with the largest change in F1: ground truth and detections of each "
        "detector."
    )
    html = gallery(shown, first.found.truth.class_names, SHOWN_MEANINGS, thresholds)
    return Section("Images", text, tables, html=html)


def most_changed(changes: Sequence[Floats]) -> Ints:
    """Return the images that change, the largest change of any detector first.

    Args:
        changes: change of each image, (I,), of each detector.
    """
    largest = np.abs(np.array(changes)).max(0)
    order = np.argsort(-largest, kind="stable")
    return np.asarray(order[largest[order] > 0])


def _counts(first: Side, one: Side, change: Floats) -> str:
    better, worse = int((change > 0).sum()), int((change < 0).sum())
    return (
        f"F1 of {one.name} is higher than that of {first.name} on {counted(better, 'image')}, and lower on {worse:,}."
    )


def _table(number: int, first: Side, one: Side, before: Floats, after: Floats) -> Table:
    change = after - before
    rows: list[list[Any]] = [
        [image_name(one.found, rank), float(before[rank]), float(after[rank]), float(change[rank])]
        for rank in most_changed([change])[:_CHANGED].tolist()
    ]
    title = "Images with the largest change in F1" + ("" if number == 1 else f", {one.name}")
    note = "F1 of an image at the best score threshold of each detector."
    return Table(f"images_{number}", title, ("image", first.name, one.name, "change"), rows, note)
