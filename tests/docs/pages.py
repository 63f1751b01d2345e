"""The pages of the documentation, their code blocks, and the config keys that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tldet.plugins import lookup, names_in

ROOT = Path(__file__).resolve().parents[2]
TOP = ("README.md", "CONTRIBUTING.md", "data/README.md")
PAGES = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{name_of(self.page)}:{self.line}"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(language: str) -> list[Block]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for one in FENCE.finditer(text):
            if one[1] == language:
                found.append(Block(page, text[: one.start()].count("\n") + 2, one[1], one[2]))
    return found


def prose(page: Path) -> str:
    """The text of a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> Iterator[str]:
    """The inline code of a page; of a table in which the other toolkit stands left, the last column only."""
    for line in prose(page).splitlines():
        cells = line.strip().strip("|").split(" | ")
        yield from CODE.findall(cells[-1] if "coming_from" in page.parts and line.startswith("|") else line)


def known_keys() -> set[str]:
    """Every key of a config with the sections above it; ``N`` stands for the number of a list item."""
    from docs.generate.config import keys, sections

    found = {"imports", "hooks", "_base_"}
    for pattern, part in sections().items():
        section = pattern.replace("*", "N")
        registry = hasattr(part.target, "module_dict")
        targets = [lookup(part.target, name) for name in names_in(part.target)] if registry else [part.target]
        names = {one.name for target in [*targets, *([part.shared] if part.shared else [])] for one in keys(target)}
        for name in names | {"type"}:
            words = f"{section}.{name}".split(".")
            found |= {".".join(words[:count]) for count in range(1, len(words) + 1)}
    return found
