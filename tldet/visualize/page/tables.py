"""Tables of a report, as HTML, CSV, LaTeX and plain containers."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

Value = str | int | float | None
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


@dataclass(frozen=True)
class Table:
    """A table of text and numbers; None is an undefined value.

    Attributes:
        name: file name without extension.
        title: heading.
        columns: names of the columns.
        rows: values of each row.
        note: explanation below the table.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON; a number that is not finite becomes None."""
        rows = [[_finite(value) for value in row] for row in self.rows]
        return {"title": self.title, "columns": list(self.columns), "rows": rows, "note": self.note}

    def csv(self) -> str:
        """Return the table as CSV at full precision."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows([["" if _finite(value) is None else value for value in row] for row in self.rows])
        return file.getvalue()

    def latex(self) -> str:
        """Return a LaTeX ``tabular`` with the rules of booktabs."""
        layout = "".join("r" if self._numeric(column) else "l" for column in range(len(self.columns)))
        lines = [_latex_row(self.columns), r"\midrule", *(_latex_row([shown(v) for v in row]) for row in self.rows)]
        return "\n".join([f"\\begin{{tabular}}{{{layout}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}", ""])

    def html(self, *, heading: bool = True) -> str:
        """Return the table as HTML, with its title as heading or without; clicking a column header sorts the rows."""
        numeric = [self._numeric(column) for column in range(len(self.columns))]
        head = "".join(
            f'<th scope="col"{_right(right)}><button type="button">{escape(name)}</button></th>'
            for name, right in zip(self.columns, numeric, strict=True)
        )
        body = "".join(f"<tr>{self._cells(row, numeric)}</tr>" for row in self.rows)
        note = f'<p class="dim">{escape(self.note)}</p>' if self.note else ""
        title = f"<h3>{escape(self.title)}</h3>" if heading and self.title else ""
        return (
            f'{title}<div class="scroll"><table class="sortable" id="table-{escape(self.name)}">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
        )

    def _cells(self, row: Sequence[Value], numeric: Sequence[bool]) -> str:
        pairs = zip(row, numeric, strict=True)
        return "".join(f"<td{_right(right)}>{escape(shown(value))}</td>" for value, right in pairs)

    def _numeric(self, column: int) -> bool:
        values = [row[column] for row in self.rows if row[column] is not None]
        return bool(values) and all(not isinstance(value, str) for value in values)


def shown(value: Value) -> str:
    """Return a value as text: three decimals, thousands separators, a dash for an undefined value."""
    value = _finite(value)
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _finite(value: Value) -> Value:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _right(right: bool) -> str:
    return ' class="number"' if right else ""


def _latex_row(values: Sequence[str]) -> str:
    texts = (re.sub(r"[\\~^&%$#_{}]", lambda one: _LATEX[one[0]], value) for value in values)
    return f"{' & '.join(texts)} \\\\"
