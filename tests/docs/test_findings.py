"""The page on findings lists every code with its severity."""

from __future__ import annotations

import re
from pathlib import Path

from tldet.data.checks.findings import CODES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "check.md"


def documented() -> dict[str, str]:
    """Severity of each code in the tables of findings; empty for label errors, which have one severity."""
    found = {}
    for line in PAGE.read_text(encoding="utf-8").partition("## Repair")[0].splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if line.startswith("| `") and len(cells) > 3:
            severity = cells[2] if cells[2] in ("error", "warning", "info") else ""
            found |= dict.fromkeys(re.findall(r"`([a-z-]+)`", cells[1]), severity)
    return found


def test_every_code_is_documented_with_its_severity() -> None:
    listed = documented()
    assert listed.keys() == CODES.keys()
    assert {code: severity for code, severity in listed.items() if severity} == {
        code: severity for code, (severity, _) in CODES.items() if not code.startswith("label-")
    } | {"labeled-unknown": "error"}
