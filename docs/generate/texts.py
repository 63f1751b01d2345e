"""Texts of docstrings and tables as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_ROLE = re.compile(r":(?:class|func|meth|mod|data|attr|exc|obj):`(~?)([\w.]+)(?:\(\))?`")


def markdown(text: str) -> str:
    """Return a docstring with its reStructuredText roles and double backticks as Markdown code."""

    def code(found: re.Match[str]) -> str:
        return f"`{found[2].rpartition('.')[2] if found[1] else found[2]}`"

    return _ROLE.sub(code, text).replace("``", "`")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(one) for one in line)} |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def sentence(text: str) -> str:
    """Return a text with a capital first letter, unless it begins with a name in lower case and code."""
    return text[:1].upper() + text[1:]
