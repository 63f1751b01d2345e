"""The page of a check: one HTML file with the findings and their images, for light and dark displays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from tldet.data.checks.findings import CODES, Finding
from tldet.data.checks.records import Records
from tldet.system.output import write_text
from tldet.visualize.page.document import html_page
from tldet.workflows.check.tables import line_of
from tldet.workflows.check.thumbnails import image_tag

_CARDS, _PAGE_IMAGES = 24, 240  # findings shown of a code, images on the page
_STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d5d9e0, #3a4150); --card: light-dark(#fff, #1c2129);
  --back: light-dark(#f5f6f8, #12161c); --text: light-dark(#1c2430, #e4e8ee); --dim: light-dark(#5a6472, #9aa5b4);
  --error: light-dark(#b3261e, #ff8a80); --warning: light-dark(#8a5a00, #ffca66); --info: light-dark(#2458a6, #8ab8ff);
  --fix: light-dark(#1d6b3a, #7ddc9f); }
* { box-sizing: border-box; }
body { margin: 0; padding: 16px; background: var(--back); color: var(--text);
  font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1200px; margin: auto; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; }
p { margin: 4px 0; }
.dim { color: var(--dim); overflow-wrap: anywhere; }
.error { color: var(--error); } .warning { color: var(--warning); } .info { color: var(--info); }
nav { display: flex; flex-wrap: wrap; gap: 6px; margin: 12px 0; padding: 0; list-style: none; }
nav a { padding: 3px 9px; border: 1px solid var(--line); border-radius: 12px; background: var(--card);
  text-decoration: none; font-size: 13px; }
details { margin: 14px 0; border: 1px solid var(--line); border-radius: 8px; background: var(--card); }
summary { padding: 10px 12px; cursor: pointer; font-weight: 600; }
summary span { font-weight: 400; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(250px, 100%), 1fr)); gap: 10px;
  padding: 0 12px 12px; }
article { border-top: 1px solid var(--line); padding-top: 8px; font-size: 13px; overflow-wrap: anywhere; }
article img { max-width: 100%; max-height: 200px; border-radius: 4px; display: block; margin-bottom: 6px; }
.pair { display: flex; gap: 6px; } .pair img { max-width: calc(50% - 3px); object-fit: contain; }
.fix { color: var(--fix); }
table { border-collapse: collapse; margin: 8px 0; font-size: 14px; }
td, th { text-align: left; padding: 2px 14px 2px 0; } td + td, th + th { text-align: right; }
"""


def write_check_page(
    path: Path, report: Mapping[str, Any], findings: Sequence[Finding], splits: Sequence[Records]
) -> None:
    """Write the page.

    Args:
        path: the HTML file.
        report: the values of the JSON file.
        findings: the findings in their order.
        splits: records that the images are found by.

    Raises:
        OutputError: the file cannot be written.
    """
    groups: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.code].append(finding)
    images = _Images(splits)
    title = f"Check of {report['data']}"
    body = "".join([_head(title, report), _links(groups), *(_group(code, groups[code], images) for code in groups)])
    write_text(path, html_page(title, _STYLE, body))


def _head(title: str, report: Mapping[str, Any]) -> str:
    counts = ", ".join(
        f'<span class="{name}">{count} {name}{"s" * (count != 1 and name != "info")}</span>'
        for name, count in report["counts"].items()
    )
    names = ("images", "objects", "classes")
    rows = "".join(
        f"<tr><td>{escape(split)}</td>{''.join(f'<td>{numbers[name]:,}</td>' for name in names)}</tr>"
        for split, numbers in report["splits"].items()
    )
    head = "".join(f"<th>{name}</th>" for name in ("split", *names))
    table = f"<table><tr>{head}</tr>{rows}</table>" if rows else ""
    return f"<h1>{escape(title)}</h1><p>{counts}</p>{table}"


def _links(groups: Mapping[str, Sequence[Finding]]) -> str:
    links = "".join(
        f'<a class="{found[0].severity}" href="#{code}">{escape(code)} {_count(found)}</a>'
        for code, found in groups.items()
    )
    return f"<nav>{links}</nav>" if links else "<p>No findings.</p>"


def _count(found: Sequence[Finding]) -> str:
    return f"{sum(1 + finding.others for finding in found):,}"


def _group(code: str, found: Sequence[Finding], images: _Images) -> str:
    cards = "".join(_card(finding, images) for finding in found[:_CARDS])
    more = f"<article>{len(found) - _CARDS:,} more; --json lists all</article>" if len(found) > _CARDS else ""
    severity = found[0].severity
    opened = "" if severity == "info" else " open"
    title = f'<span class="{severity}">{severity}</span> {escape(CODES[code][1])} <span class="dim">'
    return (
        f'<details id="{code}"{opened}><summary>{title}{escape(code)}, {_count(found)}</span></summary>'
        f'<div class="cards">{cards}{more}</div></details>'
    )


def _card(finding: Finding, images: _Images) -> str:
    tags = list(images.tags(finding))
    shown = f'<div class="pair">{"".join(tags)}</div>' if len(tags) > 1 else "".join(tags)
    place, _, _ = line_of(finding).partition(f": {finding.message}")
    score = "" if finding.score is None else f" (score {finding.score:.2f})"
    more = f" ({finding.others:,} more)" if finding.others else ""
    fix = f'<p class="fix">{escape(finding.fix)}{" (--fix)" if finding.repairs else ""}</p>' if finding.fix else ""
    text = f"<p>{escape(finding.message)}{score}{more}</p>{fix}"
    return f'<article>{shown}{text}<p class="dim">{escape(place)}</p></article>'


class _Images:
    """Images of findings, as HTML; only so many that the page stays small."""

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
