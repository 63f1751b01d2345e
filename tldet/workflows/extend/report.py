"""AP of old and new classes before and after the extension."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.errors import DataError
from tldet.evaluation.protocols.result import metric_text
from tldet.evaluation.report import CocoResult, mean_over
from tldet.system.output import write_json
from tldet.text import table_as_html

if TYPE_CHECKING:
    from rich.table import Table

EXTEND_REPORT = "extend.json"
NO_GROUND_TRUTH = -1.0
_ByClass = Mapping[str, float]  # by class name


@dataclass(frozen=True)
class ClassMetrics:
    """AP and AP50 of each class by name, -1 without ground truth."""

    AP: _ByClass = field(default_factory=dict)
    AP50: _ByClass = field(default_factory=dict)

    @classmethod
    def of(cls, result: CocoResult) -> ClassMetrics:
        """Return the metrics of an evaluation."""
        return cls(dict(result.per_class), dict(result.per_class_ap50))


@dataclass(frozen=True, repr=False)
class ExtendReport:
    """Metrics of the original and the extended detector on the same images.

    Attributes:
        old: names of the old classes.
        new: names of the new classes.
        before: metrics of the original detector on old classes.
        after: metrics of the extended detector; empty before training.
        checkpoint: checkpoint of the extended detector.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    before: ClassMetrics
    after: ClassMetrics = field(default_factory=ClassMetrics)
    checkpoint: str | None = None

    def __repr__(self) -> str:
        change = "not evaluated" if self.change is None else f"{self.change:+.3f}"
        new = metric_text(mean_over(self.after.AP, self.new))
        return f"ExtendReport(AP of old classes {change}, AP of new classes {new}, checkpoint {self.checkpoint!r})"

    def _repr_html_(self) -> str:
        return table_as_html(self.table())

    @property
    def change(self) -> float | None:
        """Change of the mean AP of old classes; None without ground truth."""
        before, after = mean_over(self.before.AP, self.old), mean_over(self.after.AP, self.old)
        return None if NO_GROUND_TRUTH in (before, after) else after - before

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        means = {
            "old_before": mean_over(self.before.AP, self.old),
            "old_after": mean_over(self.after.AP, self.old),
            "old_change": self.change,
            "new_after": mean_over(self.after.AP, self.new),
        }
        return {**asdict(self), "AP": means}

    def save(self, folder: str | Path) -> None:
        """Write the report to the folder of a run.

        Raises:
            DataError: the file cannot be written.
        """
        write_json(Path(folder) / EXTEND_REPORT, self.to_dict(), indent=2)

    def table(self) -> Table:
        """Return the table of all classes, with means of old and of new classes."""
        from rich.table import Table
        from rich.text import Text

        shown = Table(title="AP before and after the extension, on the same images")
        shown.add_column("class")
        for column in ("AP before", "AP after", "change", "AP50 before", "AP50 after"):
            shown.add_column(column, justify="right")
        for kind, names in (("old", self.old), ("new", self.new)):
            for name in names:
                shown.add_row(Text(name), *self._row((name,)))
            shown.add_section()
            shown.add_row(f"mean of {kind}", *self._row(names), style="bold")
            shown.add_section()
        return shown

    def _row(self, names: tuple[str, ...]) -> list[str]:
        values = [mean_over(one, names) for one in (self.before.AP, self.after.AP, self.before.AP50, self.after.AP50)]
        change = "-" if NO_GROUND_TRUTH in values[:2] else f"{values[1] - values[0]:+.3f}"
        before, after, *ap50 = ("-" if value == NO_GROUND_TRUTH else f"{value:.3f}" for value in values)
        return [before, after, change, *ap50]


def read_report(folder: Path) -> ExtendReport:
    """Read the report in the folder of a run.

    Raises:
        DataError: there is no report, or it is damaged.
    """
    path = folder / EXTEND_REPORT
    try:
        stored = json.loads(path.read_bytes())
        before, after = (ClassMetrics(**stored[key]) for key in ("before", "after"))
        return ExtendReport(tuple(stored["old"]), tuple(stored["new"]), before, after, stored["checkpoint"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: is not a report of tldet extend ({type(error).__name__}): nothing to resume"
        ) from None
