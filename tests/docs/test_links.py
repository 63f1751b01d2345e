"""Links between pages lead to files and headings that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import FENCE, PAGES, ROOT, name_of, prose

LINK = re.compile(r"\]\(([^)\s]+)\)")
GENERATED = {"reference/api.md", "reference/commands.md", "reference/config.md", "reference/recipes.md", "changelog.md"}


def anchors(page: Path) -> set[str]:
    from markdown.extensions.toc import slugify

    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    return {slugify(title.replace("`", ""), "-") for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def fault(page: Path, target: str) -> str | None:
    """Return the problem of a link of a page; None if it is right or leads to the network."""
    if target.startswith(("http://", "https://")):
        return None
    path, _, anchor = target.partition("#")
    found = (page.parent / path).resolve() if path else page
    docs = ROOT / "docs"
    if found.is_relative_to(docs) and found.relative_to(docs).as_posix() in GENERATED:
        return None
    if not found.exists():
        return f"{target} does not exist"
    if page.is_relative_to(docs) and not found.is_relative_to(docs):
        return f"{target} is not part of the site"
    return f"{target} has no such heading" if anchor and anchor not in anchors(found) else None


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links(page: Path) -> None:
    found = [fault(page, target) for target in LINK.findall(prose(page))]
    assert [one for one in found if one] == []


def test_the_check_can_fail() -> None:
    page = ROOT / "docs" / "index.md"
    assert fault(page, "nothing.md") == "nothing.md does not exist"
    assert fault(page, "../README.md") == "../README.md is not part of the site"
    assert fault(page, "results.md#nothing") == "results.md#nothing has no such heading"
    assert fault(page, "results.md#generated-digits") is None
