"""HTML report of a check: one file with the findings and their images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tldet.data.checks.findings import CODES, Finding
from tldet.data.checks.records import Records
from tldet.system.output import write_text
from tldet.text import counted
from tldet.visualize.page.document import Section, document
from tldet.visualize.page.tables import Table, Value
from tldet.workflows.check.tables import line_of
from tldet.workflows.check.thumbnails import image_tag

_CARDS, _PAGE_IMAGES = 24, 240  # largest number of findings shown per code, and of images
_COLUMNS = ("images", "objects", "classes")


def write_check_page(
    path: Path, report: Mapping[str, Any], findings: Sequence[Finding], splits: Sequence[Records]
) -> None:
    """Write the report.

    Args:
        path: the HTML file.
        report: the values of the JSON file.
        findings: the findings in their order.
        splits: the splits, which locate the images.

    Raises:
        OutputError: the file cannot be written.
    """
    groups: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.code].append(finding)
    images = _Images(splits)
    sections = [_splits(report["splits"])] if report["splits"] else []
    sections += [_section(code, found, images) for code, found in groups.items()]
    write_text(path, document(f"Check of {report['data']}", _counts(report["counts"]), sections))


def _counts(counts: Mapping[str, int]) -> str:
    if not any(counts.values()):
        return "No findings."
    return ", ".join(f"{count} {name}{'s' * (count != 1 and name != 'info')}" for name, count in counts.items())


def _splits(splits: Mapping[str, Mapping[str, int]]) -> Section:
    rows: list[list[Value]] = [[split, *(numbers[name] for name in _COLUMNS)] for split, numbers in splits.items()]
    return Section("Splits", tables=[Table("splits", "Splits", ("split", *_COLUMNS), rows)])


def _section(code: str, found: Sequence[Finding], images: _Images) -> Section:
    """Return the findings of one code; those of severity info are collapsed."""
    count = sum(1 + finding.others for finding in found)
    severity = found[0].severity
    cards = "".join(_card(finding, images) for finding in found[:_CARDS])
    if len(found) > _CARDS:
        cards += f"<article>{len(found) - _CARDS:,} more (--json saves all)</article>"
    cards = f'<div class="findings">{cards}</div>'
    summary = counted(count, "finding")
    cards = f"<details><summary>{summary}</summary>{cards}</details>" if severity == "info" else cards
    meaning = f'<p><b class="{severity}">{severity}</b> {escape(CODES[code][1])}</p>'
    return Section(f"{code} ({count:,})", html=meaning + cards)


def _card(finding: Finding, images: _Images) -> str:
    tags = list(images.tags(finding))
    shown = f'<div class="pair">{"".join(tags)}</div>' if len(tags) > 1 else "".join(tags)
    location, _, _ = line_of(finding).partition(f": {finding.message}")
    score = "" if finding.score is None else f" (score {finding.score:.2f})"
    more = f" ({finding.others:,} more)" if finding.others else ""
    fix = f'<p class="fix">{escape(finding.fix)}{" (by --fix)" if finding.repairs else ""}</p>' if finding.fix else ""
    text = f"<p>{escape(finding.message)}{score}{more}</p>{fix}"
    return f'<article>{shown}{text}<p class="dim">{escape(location)}</p></article>'


class _Images:
    """Images of findings, as HTML; their number is limited to keep the page small."""

    def __init__(self, splits: Sequence[Records]) -> None:
        self.left = _PAGE_IMAGES
        self.paths = {
            (str(file), name): path
            for records in splits
            for name, path, file in zip(
                records.file_names, records.paths, records.sources or [records.file] * len(records.paths), strict=False
            )
        }

    def tags(self, finding: Finding) -> Iterator[str]:
        """Yield the image of a finding with its box, and the other image of a pair."""
        path = self.paths.get((finding.file, finding.image or ""))
        if path is None or self.left <= 0:
            return
        for one, box in ((path, finding.box), (finding.related, None)):
            tag = "" if one is None else image_tag(Path(one), box)
            self.left -= bool(tag)
            yield from [tag] if tag else []
