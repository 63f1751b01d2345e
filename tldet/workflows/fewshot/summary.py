"""What an experiment found: mean, deviation and interval over seeds of the AP of base and of novel classes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from tldet.workflows.fewshot.plan import Cell

if TYPE_CHECKING:
    from rich.table import Table

Groups = Mapping[str, Mapping[str, float]]  # "base" and "novel" to AP and AP50
NUMBERS = (("base", "AP"), ("base", "AP50"), ("novel", "AP"), ("novel", "AP50"))
SHOWN = (("base", "AP"), ("novel", "AP"), ("novel", "AP50"))
# Student's t at 97.5 % for 1 to 29 degrees of freedom; beyond, the normal distribution's is within 4 %.
T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
     2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)  # fmt: skip
NORMAL = 1.960


@dataclass(frozen=True)
class Spread:
    """Mean over seeds, sample standard deviation and half a 95 % interval of the mean; None with a single seed."""

    mean: float
    deviation: float | None
    interval: float | None

    def __str__(self) -> str:
        if self.interval is None:
            return f"{self.mean:.3f}"
        return f"{self.mean:.3f} ± {self.interval:.3f}\nsd {self.deviation:.3f}"


def spread(values: Sequence[float]) -> Spread:
    """The mean of one number or more, and how far off it may be (Student's t)."""
    count = len(values)
    if count < 2:
        return Spread(mean(values), None, None)
    deviation, t = stdev(values), T[count - 2] if count - 2 < len(T) else NORMAL
    return Spread(mean(values), deviation, t * deviation / math.sqrt(count))


def summarise(runs: Mapping[Cell, Groups]) -> list[dict[str, Any]]:
    """One entry for each arm and number of shots: its seeds, and a :class:`Spread` of each number over them."""
    entries = []
    for arm, shots in dict.fromkeys((cell.arm, cell.shots) for cell in runs):
        same = {cell.seed: groups for cell, groups in runs.items() if (cell.arm, cell.shots) == (arm, shots)}
        numbers = {f"{group}_{key}": spread([one[group][key] for one in same.values()]) for group, key in NUMBERS}
        entries.append({"arm": arm, "shots": shots, "seeds": list(same), **numbers})
    return entries


def to_json(before: Groups, runs: Mapping[Cell, Groups]) -> dict[str, Any]:
    """Everything in plain containers, numbers to the last bit."""
    return {
        "before": before,
        "summary": [{k: asdict(v) if isinstance(v, Spread) else v for k, v in e.items()} for e in summarise(runs)],
        "runs": [{**asdict(cell), **groups} for cell, groups in runs.items()],
    }


def table(before: Groups, runs: Mapping[Cell, Groups]) -> Table:
    """Base and novel AP before and after, a row for each arm and number of shots."""
    from rich.table import Table

    shown = Table(title="mean ± 95 % interval over seeds, sd their standard deviation")
    for name in ("arm", "shots", "seeds"):
        shown.add_column(name)
    for group, key in SHOWN:
        shown.add_column(f"{group} {key}", justify="right")
    shown.add_row("base", "all", "", *(f"{v:.3f}" if (v := before[g][k]) >= 0 else "-" for g, k in SHOWN))
    for entry in summarise(runs):
        seeds = ", ".join(map(str, entry["seeds"]))
        shown.add_row(entry["arm"], str(entry["shots"]), seeds, *(str(entry[f"{g}_{k}"]) for g, k in SHOWN))
    return shown
