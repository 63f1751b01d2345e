"""Result of ``tldet export``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.exporting.verify import Comparison


@dataclass
class ExportResult:
    """Result of an export.

    Attributes:
        path: the file.
        comparison: comparison of the detections of file and checkpoint; None if not verified.
        before: AP of the checkpoint; None without a dataset.
        after: AP of the exported file; None without a dataset.
        passed: False if the file differs from the checkpoint by more than is allowed.
        reason: reason of a failed verification; empty if it passed.
        quantization: with int8, the sensitivity of each part and the parts that stay in fp32, with the reason.
    """

    path: Path
    comparison: Comparison | None = None
    before: float | None = None
    after: float | None = None
    passed: bool = True
    reason: str = ""
    quantization: dict[str, Any] = field(default_factory=dict)

    def fail(self, reason: str) -> None:
        """Record a failure."""
        self.passed, self.reason = False, f"{self.reason}; {reason}" if self.reason else reason
