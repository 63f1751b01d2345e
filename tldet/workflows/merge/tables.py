"""The report of a merge as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tldet.workflows.merge.notes import some_names
from tldet.workflows.merge.report import MergeReport

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 150  # of a table in a file or a pipe


def show_merge(report: MergeReport, console: Console) -> None:
    """Print the tables."""
    inputs = [(r.path, r.part, str(r.images), str(r.objects), some_names(r.classes)) for r in report.inputs]
    _print(console, "inputs", ("input", "part", "images", "objects", "classes"), inputs)
    if report.changed_categories:
        rows = [(r.path, f"{r.old_id} {r.old_name}", f"{r.new_id} {r.new_name}") for r in report.changed_categories]
        _print(console, "categories with a new id or name", ("input", "was", "is"), rows)
    images = {row.part: row.images for row in report.parts}
    found = [
        (str(r.id), r.name, r.part, str(r.objects), f"{r.labeled_images} of {images[r.part]}") for r in report.classes
    ]
    _print(console, "classes", ("id", "class", "part", "objects", "labeled on"), found)
    out = [(r.file, str(r.images), str(r.united_images), str(r.objects), str(r.twins)) for r in report.parts]
    _print(console, "merged", ("file", "images", "united", "objects", "left out"), out)


def _print(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:  # a file or a pipe has no width to fit into
        table.width = Measurement.get(console, console.options.update(max_width=WIDTH), table).maximum
    console.print(table)
