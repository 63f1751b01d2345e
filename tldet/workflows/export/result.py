"""Result of ``tldet export``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.evaluation.protocols.result import metric_text
from tldet.exporting.verify import Comparison
from tldet.text import html_table


@dataclass(repr=False)
class ExportResult:
    """Result of an export.

    Attributes:
        path: the exported file.
        comparison: comparison of the detections with those of the checkpoint; None if not verified.
        before: AP of the checkpoint; None without a dataset.
        after: AP of the exported file; None without a dataset.
        passed: False if verification, quantization or the check of operators failed.
        reason: reason for the failure; empty if all passed.
        quantization: for int8, calibration images, sensitivity of each part, and the reason why a part stays in fp32.
    """

    path: Path
    comparison: Comparison | None = None
    before: float | None = None
    after: float | None = None
    passed: bool = True
    reason: str = ""
    quantization: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"ExportResult({', '.join(f'{name} {value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        return html_table("export", ("", ""), list(self._facts().items()))

    def _facts(self) -> dict[str, str]:
        """Return the parts of the result that are known, as text."""
        facts = {"file": str(self.path), "verification": "passed" if self.passed else self.reason}
        if self.comparison is not None:
            facts["matching detections"] = f"{self.comparison.fraction:.1%}"
        if self.before is not None and self.after is not None:
            facts["AP"] = f"{metric_text(self.before)} before, {metric_text(self.after)} after"
        return facts

    def fail(self, reason: str) -> None:
        """Record a failure."""
        self.passed, self.reason = False, f"{self.reason}; {reason}" if self.reason else reason
