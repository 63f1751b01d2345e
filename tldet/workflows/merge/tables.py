"""Tables of the report of a merge."""

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
    inputs = [(r.path, r.split, str(r.images), str(r.objects), some_names(r.classes)) for r in report.inputs]
    _print(console, "inputs", ("input", "split", "images", "objects", "classes"), inputs)
    if report.changed_categories:
        rows = [(r.path, f"{r.old_id} {r.old_name}", f"{r.new_id} {r.new_name}") for r in report.changed_categories]
        _print(console, "categories with a new id or name", ("input", "before", "after"), rows)
    images = {row.split: row.images for row in report.splits}
    found = [
        (str(r.id), r.name, r.split, str(r.objects), f"{r.labeled_images} of {images[r.split]}") for r in report.classes
    ]
    _print(console, "classes", ("id", "class", "split", "objects", "annotated images"), found)
    out = [(r.file, str(r.images), str(r.merged_images), str(r.objects), str(r.duplicates)) for r in report.splits]
    _print(console, "output", ("file", "images", "merged", "objects", "duplicates"), out)


def _print(console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    if not console.is_terminal:  # files and pipes have no width
        table.width = Measurement.get(console, console.options.update(max_width=WIDTH), table).maximum
    console.print(table)
