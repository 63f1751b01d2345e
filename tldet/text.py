"""Text of messages: numbers with nouns, and HTML tables for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from tldet.runtime.errors import counted as counted

if TYPE_CHECKING:
    from rich.table import Table


def are(number: int) -> str:
    """Return ``is`` for 1 and ``are`` for other numbers."""
    return "is" if number == 1 else "are"


def table_as_html(table: Table) -> str:
    """Return a rich table as HTML; markup in its cells is kept as text."""
    rows = zip(*(column.cells for column in table.columns), strict=True)
    return html_table(str(table.title or ""), [str(column.header) for column in table.columns], rows)


def html_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]], note: str = "") -> str:
    """Return a table as HTML; all text is escaped.

    Args:
        title: caption.
        header: names of the columns.
        rows: values of each row.
        note: line below the table.
    """
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(f"<tr>{''.join(f'<td>{escape(str(value))}</td>' for value in row)}</tr>" for row in rows)
    below = f"<p>{escape(note)}</p>" if note else ""
    return (
        f"<table><caption>{escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"
    )
