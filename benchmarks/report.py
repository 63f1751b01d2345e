"""What a suite found, as rows for people and for JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.timing import Comparison, Times

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Memory:
    """Peak memory of both sides in MB, and how it was measured."""

    ours: float
    theirs: float
    how: str


@dataclass(frozen=True)
class Limit:
    """The share of the machine's own limit that our side reached, and what the limit is."""

    share: float
    of: str


@dataclass(frozen=True)
class Row:
    """One thing timed on both sides.

    Attributes:
        name: what was timed.
        beside: what the other side is.
        comparison: seconds of both.
        each: what one number of seconds is for.
        memory: peak memory, where it was measured.
        limit: how near our side comes to what the machine can do.
        checks: what else was looked at, such as whether results agree.
    """

    name: str
    beside: str
    comparison: Comparison
    each: str = "run"
    memory: Memory | None = None
    limit: Limit | None = None
    checks: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Every number, for JSON; times are seconds."""
        return {
            "name": self.name,
            "beside": self.beside,
            "each": self.each,
            "ours": self.comparison.ours.to_dict(),
            "theirs": self.comparison.theirs.to_dict(),
            "ratio": self.comparison.ratios.to_dict(),
            "memory": None if self.memory is None else vars(self.memory),
            "limit": None if self.limit is None else vars(self.limit),
            "checks": self.checks,
        }


@dataclass
class Suite:
    """The rows of a suite, and what was left out and why."""

    name: str
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"rows": [row.to_dict() for row in self.rows], "skipped": self.skipped, "seconds": self.seconds}

    def draw(self, path: Path) -> Path | None:  # noqa: ARG002  # of a suite that has one
        """Write a plot; None where the suite has none."""
        return None

    def table(self) -> Table:
        """Medians, ratios with quartiles, memory, the share of the limit."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=f"{self.name}: medians; a ratio above 1 says that ours is faster", box=None, padding=(0, 1))
        for heading in ("what", "ours", "other", "ratio (quartiles)", "MB ours / other", "limit"):
            shown.add_column(heading, justify="left" if heading == "what" else "right", overflow="fold")
        names = [row.name for row in self.rows]
        for row in self.rows:
            what = row.name if names.count(row.name) == 1 else f"{row.name}, beside {row.beside}"
            memory = f"{row.memory.ours:.0f} / {row.memory.theirs:.0f}" if row.memory else ""
            limit = f"{row.limit.share:.0%}" if row.limit else ""
            sides = (_seconds(row.comparison.ours), _seconds(row.comparison.theirs), _ratio(row.comparison.ratios))
            shown.add_row(*(Text(cell) for cell in (what, *sides, memory, limit)))
        return shown

    def notes(self) -> list[str]:
        """What stands below the table: what was compared, checks, how memory was measured, what was left out."""
        lines = []
        for row in self.rows:
            limit = {"limit": row.limit.of} if row.limit else {}
            about = ", ".join(f"{name}: {_short(value)}" for name, value in {**limit, **row.checks}.items())
            lines.append(f"{row.name}: beside {row.beside}, each {row.each}" + (f"; {about}" if about else ""))
        how = dict.fromkeys(f"MB: {row.memory.how}" for row in self.rows if row.memory)
        return [*lines, *how, *(f"left out: {line}" for line in self.skipped)]


def _seconds(times: Times) -> str:
    return f"{times.median:.3g} s" if times.median >= 1 else f"{1e3 * times.median:.3g} ms"


def _ratio(times: Times) -> str:
    return f"{times.median:.2f} ({times.quantile(0.25):.2f} - {times.quantile(0.75):.2f})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
