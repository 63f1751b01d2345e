"""Self-contained HTML document: style sheet, sections with tables and plots, and scripts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.resources import files

from tldet.visualize.page.plots import Plot, svg
from tldet.visualize.page.tables import Table

_LONG = 12  # largest number of rows of a table that is not collapsed, and of a matrix in one column


@dataclass(frozen=True)
class Section:
    """A section of a page.

    Attributes:
        title: heading.
        text: paragraphs.
        tables: its tables.
        plots: its plots.
        html: additional content below the text, escaped.
    """

    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    plots: Sequence[Plot] = ()
    html: str = ""


def document(title: str, subtitle: str, sections: Sequence[Section], *, script: str = "") -> str:
    """Return a page for light and dark displays of any width.

    Args:
        title: title of the page.
        subtitle: line below the title.
        sections: the content.
        script: additional JavaScript.
    """
    links = "".join(f'<a href="#{anchor(one.title)}">{escape(one.title)}</a>' for one in sections)
    body = "".join(_section(one) for one in sections)
    head = f'<h1>{escape(title)}</h1><p class="dim">{escape(subtitle)}</p><nav>{links}</nav>'
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{asset('page.css')}</style></head>"
        f"<body><main>{head}{body}</main><script>{asset('page.js')}{script}</script></body></html>\n"
    )


def anchor(title: str) -> str:
    """Return the id of a section."""
    return re.sub(r"\W+", "-", title.lower()).strip("-")


@cache
def asset(name: str) -> str:
    """Return the text of a file of this package."""
    return (files("tldet.visualize.page") / name).read_text(encoding="utf-8")


def _section(section: Section) -> str:
    text = "".join(f"<p>{escape(line)}</p>" for line in section.text)
    plots = "".join(_figure(plot) for plot in section.plots)
    plots = f'<div class="plots">{plots}</div>' if plots else ""
    tables = "".join(_table(table, section.title) for table in section.tables)
    name = anchor(section.title)
    return f'<section id="{name}"><h2>{escape(section.title)}</h2>{text}{section.html}{plots}{tables}</section>'


def _figure(plot: Plot) -> str:
    note = f'<p class="dim">{escape(plot.note)}</p>' if plot.note else ""
    large = ' class="large"' if plot.kind == "matrix" and len(plot.series) > _LONG else ""
    return f"<figure{large}><figcaption>{escape(plot.title)}</figcaption>{svg(plot, page=True)}{note}</figure>"


def _table(table: Table, section: str) -> str:
    """Return a table, without a heading that repeats the title of its section or the summary of the collapsed table."""
    if len(table.rows) <= _LONG:
        return table.html(heading=table.title != section)
    summary = f"{escape(table.title)} ({len(table.rows):,} rows)"
    return f"<details><summary>{summary}</summary>{table.html(heading=False)}</details>"
