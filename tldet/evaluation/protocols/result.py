"""Result of an evaluation protocol other than COCO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tldet.text import html_table

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, repr=False)
class ProtocolResult:
    """Metrics of a protocol, unrounded; -1 without ground truth. No metric has the name of a COCO metric.

    Attributes:
        protocol: name of the protocol, with its parameters.
        metrics: value of each metric, by name; the first one is the main metric.
        class_metric: name of the metric of each class.
        per_class: value of ``class_metric`` for each class, by class name.
        settings: parameters of the protocol.
    """

    protocol: str
    metrics: Mapping[str, float]
    class_metric: str
    per_class: Mapping[str, float]
    settings: Mapping[str, Any]

    def __repr__(self) -> str:
        name, value = next(iter(self.metrics.items()))
        return f"ProtocolResult({name} {metric_text(value)})"

    def _repr_html_(self) -> str:
        rows = [*self.metrics.items(), *((f"{self.class_metric}, {name}", v) for name, v in self.per_class.items())]
        return html_table(self.protocol, ("metric", "value"), ((name, metric_text(value)) for name, value in rows))

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        per_class = {self.class_metric: dict(self.per_class)}
        return {"protocol": self.protocol, **self.settings, "metrics": dict(self.metrics), "per_class": per_class}

    def table(self) -> Table:
        """Return a rich table of the classes and the metrics."""
        from rich.table import Table
        from rich.text import Text

        table = Table(title=self.protocol)
        table.add_column("class")
        table.add_column(self.class_metric, justify="right")
        for name, value in self.per_class.items():
            table.add_row(Text(name), metric_text(value))
        table.add_section()
        for number, (name, value) in enumerate(self.metrics.items()):
            table.add_row(Text(name), metric_text(value), style=None if number else "bold")
        return table


def metric_text(value: float) -> str:
    """Format a metric with three decimals; a dash stands for -1."""
    return "-" if value < 0 else f"{value:.3f}"
