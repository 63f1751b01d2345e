"""Table of the findings of a check."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tldet.data.checks.findings import Finding
from tldet.text import counted

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"error": "red", "warning": "yellow", "info": ""}
_SHOWN = 3  # findings printed per code


def show_findings(findings: Sequence[Finding], splits: Mapping[str, Mapping[str, int]], console: Console) -> None:
    """Print the number of findings per code, the most severe first, and the first findings of each code."""
    for name, numbers in splits.items():
        images, objects = counted(numbers["images"], "image"), counted(numbers["objects"], "object")
        console.print(f"{name}: {images}, {objects}, {counted(numbers['classes'], 'class', 'classes')}")
    groups: defaultdict[tuple[str, str], list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.severity, finding.code].append(finding)
    for (severity, code), found in groups.items():
        count = sum(1 + finding.others for finding in found)
        console.print(f"{severity}: {code} ({count:,})", style=_STYLES[severity])
        for finding in found[:_SHOWN]:
            console.print(f"  {line_of(finding)}")
        if len(found) > _SHOWN:
            console.print(f"  ... {len(found) - _SHOWN:,} more")
    if not findings:
        console.print("no findings")


def line_of(finding: Finding) -> str:
    """Return a finding in one line: file, annotation and image, message, fix."""
    location = [finding.file]
    if finding.annotation is not None:
        known = finding.annotation
        name = f"annotation id {known}" if isinstance(known, int) else known
        location += [] if finding.message.startswith(name) else [name]
    if finding.image is not None:
        location.append(finding.image)
    more = f" ({finding.others:,} more)" if finding.others else ""
    return f"{': '.join(location)}: {finding.message}{more}" + (f"; {finding.fix}" if finding.fix else "")
