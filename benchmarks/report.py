"""Results of a suite as a table and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.timing import Comparison, Times

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Memory:
    """Peak memory of both sides in MB, and the method of measurement."""

    ours: float
    theirs: float
    how: str


@dataclass(frozen=True)
class PeakShare:
    """Share of peak performance that our side reached, and the definition of the peak."""

    share: float
    of: str


@dataclass(frozen=True)
class Row:
    """One comparison.

    Attributes:
        name: name of the comparison.
        baseline: the other side.
        comparison: seconds of both sides.
        each: unit of the seconds.
        memory: peak memory, if it was measured.
        peak: share of peak performance, if it was measured.
        checks: further values, such as the agreement of results.
    """

    name: str
    baseline: str
    comparison: Comparison
    each: str = "run"
    memory: Memory | None = None
    peak: PeakShare | None = None
    checks: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON; times are in seconds."""
        return {
            "name": self.name,
            "baseline": self.baseline,
            "each": self.each,
            "ours": self.comparison.ours.to_dict(),
            "theirs": self.comparison.theirs.to_dict(),
            "ratio": self.comparison.ratios.to_dict(),
            "memory": None if self.memory is None else vars(self.memory),
            "peak": None if self.peak is None else vars(self.peak),
            "checks": self.checks,
        }


@dataclass
class Suite:
    """Rows of a suite, and a line for each skipped row."""

    name: str
    rows: list[Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {"rows": [row.to_dict() for row in self.rows], "skipped": self.skipped, "seconds": self.seconds}

    def draw(self, path: Path) -> Path | None:  # noqa: ARG002  # used by subclasses
        """Write a plot; return None if the suite has no plot."""
        return None

    def table(self) -> Table:
        """Return the table of medians, ratios with quartiles, memory and share of peak performance."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title=f"{self.name}: medians; ratio: speedup of tldet", box=None, padding=(0, 1))
        for heading in ("comparison", "tldet", "other", "ratio (quartiles)", "MB tldet / other", "of peak"):
            shown.add_column(heading, justify="left" if heading == "comparison" else "right", overflow="fold")
        names = [row.name for row in self.rows]
        for row in self.rows:
            what = row.name if names.count(row.name) == 1 else f"{row.name}, {row.baseline}"
            memory = f"{row.memory.ours:.0f} / {row.memory.theirs:.0f}" if row.memory else ""
            peak = f"{row.peak.share:.0%}" if row.peak else ""
            sides = (_seconds(row.comparison.ours), _seconds(row.comparison.theirs), _ratio(row.comparison.ratios))
            shown.add_row(*(Text(text) for text in (what, *sides, memory, peak)))
        return shown

    def notes(self) -> list[str]:
        """Return the lines below the table: compared sides, checks, memory measurement, skipped rows."""
        lines = []
        for row in self.rows:
            peak = {"peak": row.peak.of} if row.peak else {}
            about = ", ".join(f"{name}: {_short(value)}" for name, value in {**peak, **row.checks}.items())
            lines.append(f"{row.name}: compared with {row.baseline}, per {row.each}" + (f"; {about}" if about else ""))
        how = dict.fromkeys(f"MB: {row.memory.how}" for row in self.rows if row.memory)
        return [*lines, *how, *(f"skipped: {line}" for line in self.skipped)]


def _seconds(times: Times) -> str:
    return f"{times.median:.3g} s" if times.median >= 1 else f"{1e3 * times.median:.3g} ms"


def _ratio(times: Times) -> str:
    return f"{times.median:.2f} ({times.quantile(0.25):.2f} - {times.quantile(0.75):.2f})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
