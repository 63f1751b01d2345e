"""Content of an HTML report as tables and plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tldet.text import counted
from tldet.visualize.page.document import Section
from tldet.visualize.page.plots import Plot
from tldet.visualize.page.tables import Table


@dataclass(frozen=True)
class Report:
    """A report on one detector, or a comparison of several.

    Attributes:
        title: title of the page.
        subtitle: names of detector and dataset, and numbers of images, objects, detections and classes.
        summary: main metrics by name.
        sections: tables and plots by subject.
    """

    title: str
    subtitle: str
    summary: dict[str, float | None]
    sections: Sequence[Section]

    @property
    def tables(self) -> Iterator[Table]:
        """All tables, in the order of the report."""
        return (table for section in self.sections for table in section.tables)

    @property
    def plots(self) -> Iterator[Plot]:
        """All plots, in the order of the report."""
        return (plot for section in self.sections for plot in section.plots)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON; undefined numbers are None."""
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "summary": self.summary,
            "tables": {table.name: table.to_dict() for table in self.tables},
            "plots": {plot.name: _plain(asdict(plot)) for plot in self.plots},
        }

    def __repr__(self) -> str:
        tables, plots = counted(len(list(self.tables)), "table"), counted(len(list(self.plots)), "plot")
        return f"Report({self.title!r}, {tables}, {plots})"


def _plain(value: Any) -> Any:
    """Return a value with lists for arrays and None for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and (value != value or abs(value) == float("inf")) else value
