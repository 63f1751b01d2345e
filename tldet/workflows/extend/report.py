"""What became of the old classes, beside the new ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.errors import DataError
from tldet.evaluation.report import CocoResult, mean_over
from tldet.system.output import write_json

if TYPE_CHECKING:
    from rich.table import Table

REPORT = "extend.json"
NOTHING = -1.0  # to measure
Numbers = Mapping[str, float]  # of each class


@dataclass(frozen=True)
class Measured:
    """AP and AP50 of each class by name, -1 where there was nothing to measure."""

    AP: Numbers = field(default_factory=dict)
    AP50: Numbers = field(default_factory=dict)

    @classmethod
    def of(cls, result: CocoResult) -> Measured:
        """Those of an evaluation."""
        return cls(dict(result.per_class), dict(result.per_class_ap50))


@dataclass(frozen=True)
class ExtendReport:
    """The old and the new detector on the same images.

    Attributes:
        old: names of the old classes.
        new: names of the new ones.
        before: the old detector on old classes.
        after: the new detector; empty before it is trained.
        checkpoint: of the new detector.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    before: Measured
    after: Measured = field(default_factory=Measured)
    checkpoint: str | None = None

    @property
    def change(self) -> float | None:
        """By how much the mean AP of the old classes rose; None where it was not measured."""
        before, after = mean_over(self.before.AP, self.old), mean_over(self.after.AP, self.old)
        return None if NOTHING in (before, after) else after - before

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, numbers to the last bit."""
        means = {
            "old_before": mean_over(self.before.AP, self.old),
            "old_after": mean_over(self.after.AP, self.old),
            "old_change": self.change,
            "new_after": mean_over(self.after.AP, self.new),
        }
        return {**asdict(self), "AP": means}

    def save(self, folder: Path) -> None:
        """Write it into a run's folder.

        Raises:
            DataError: it cannot be written.
        """
        write_json(folder / REPORT, self.to_dict(), indent=2)

    def table(self) -> Table:
        """A line for each class, and the means of old and of new ones."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title="old and new classes, on the same images before and after")
        shown.add_column("class")
        for column in ("AP before", "AP after", "change", "AP50 before", "AP50 after"):
            shown.add_column(column, justify="right")
        for kind, names in (("old", self.old), ("new", self.new)):
            for name in names:
                shown.add_row(Text(name), *self._row((name,)))
            shown.add_section()
            shown.add_row(f"all {kind}", *self._row(names), style="bold")
            shown.add_section()
        return shown

    def _row(self, names: tuple[str, ...]) -> list[str]:
        values = [mean_over(one, names) for one in (self.before.AP, self.after.AP, self.before.AP50, self.after.AP50)]
        change = "-" if NOTHING in values[:2] else f"{values[1] - values[0]:+.3f}"
        before, after, *ap50 = ("-" if value == NOTHING else f"{value:.3f}" for value in values)
        return [before, after, change, *ap50]


def read_report(folder: Path) -> ExtendReport:
    """What a run's folder keeps of it.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = folder / REPORT
    try:
        kept = json.loads(path.read_bytes())
        before, after = (Measured(**kept[key]) for key in ("before", "after"))
        return ExtendReport(tuple(kept["old"]), tuple(kept["new"]), before, after, kept["checkpoint"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: holds no run of tldet extend ({type(error).__name__}): nothing to resume") from None
