"""``tldet check``: find problems in a dataset, and repair those with an unambiguous correction."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldet.data.checks.findings import SEVERITIES, Finding, Severity, reaches
from tldet.system.output import write_json
from tldet.system.output_checks import check_outputs
from tldet.system.progress import progress_bars
from tldet.workflows.check.fix import Repaired, refuse_sources, repair, write_repaired
from tldet.workflows.check.page import write_check_page
from tldet.workflows.check.problems import find_problems
from tldet.workflows.check.request import CheckRequest
from tldet.workflows.check.sources import CheckSource, open_check_source, summary
from tldet.workflows.check.tables import show_findings
from tldet.workflows.requests import takes

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckReport:
    """Result of a check.

    Attributes:
        data: the dataset.
        format: its format.
        splits: numbers of images, objects and classes by split.
        findings: the problems, the most severe ones first.
        fail_on: least severity at which the check fails.
        repaired: repaired files and changes; None without ``--fix``.
    """

    data: str
    format: str
    splits: dict[str, dict[str, int]]
    findings: tuple[Finding, ...]
    fail_on: Severity
    repaired: Repaired | None = None

    @property
    def failed(self) -> bool:
        """True if a finding is at least as severe as ``fail_on``."""
        return reaches(self.findings, self.fail_on)

    def counts(self) -> dict[str, int]:
        """Return the number of findings of each severity."""
        return {name: sum(one.severity == name for one in self.findings) for name in reversed(SEVERITIES)}

    def as_dict(self) -> dict[str, Any]:
        """Return the values of the JSON file."""
        return {
            "data": self.data,
            "format": self.format,
            "splits": self.splits,
            "counts": self.counts(),
            "findings": [finding.as_dict() for finding in self.findings],
            **({} if self.repaired is None else {"fix": self.repaired.as_dict()}),
        }


@takes(CheckRequest)
def check(request: CheckRequest) -> CheckReport:
    """Check a dataset: annotations, image files, duplicate images within and between splits, and label errors.

    The dataset is never changed: ``fix`` writes new annotation files and a list of changes.

    Raises:
        TldetError: there is no dataset, or an output cannot be written.
    """
    outputs = (request.json, request.html)
    check_outputs(outputs, [request.data], overwrite=request.overwrite)
    with progress_bars(request.console) as progress:
        source = open_check_source(request)
        check_outputs(outputs, source.files, overwrite=True)
        refuse_sources(request, source)
        findings = sorted(find_problems(request, source, progress), key=_order)
        repaired = repair(request, source, findings) if request.fix is not None else None
        report = CheckReport(
            str(request.data), source.format, summary(source.splits), tuple(findings), request.fail_on, repaired
        )
        _write(request, source, report)
    if request.console:
        show_findings(report.findings, report.splits, request.console)
        _show_outputs(request, report)
    return report


def _order(finding: Finding) -> tuple[int, str, float]:
    """Return the sort key: severity, then code; label errors of one severity are sorted together, by score."""
    code = finding.code if finding.score is None else "label"
    return -SEVERITIES.index(finding.severity), code, -(finding.score or 0.0)


def _write(request: CheckRequest, source: CheckSource, report: CheckReport) -> None:
    if request.json is not None:
        write_json(request.json, report.as_dict(), indent=2)
    if request.html is not None:
        write_check_page(Path(request.html), report.as_dict(), report.findings, source.splits)
    if report.repaired is not None:
        write_repaired(report.repaired)


def _show_outputs(request: CheckRequest, report: CheckReport) -> None:
    for path in (request.json, request.html):
        if path is not None:
            log.info("saved to %s", path)
    if report.repaired is not None:
        for line in report.repaired.lines():
            log.info("%s", line)
