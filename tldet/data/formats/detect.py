"""Detection of the format of a source by its content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tldet.data.formats.registry import Format, formats
from tldet.data.formats.tree import Tree
from tldet.errors import DataError
from tldet.text import counted

_SHOWN = 3


def detect_format(tree: Tree, name: str | None = None) -> tuple[Format, Sequence[Path]] | None:
    """Return the format of a source and its annotation files; None if no format fits.

    Args:
        tree: the source.
        name: the user-specified format.

    Raises:
        DataError: several formats fit; or the user-specified one is unknown or does not fit.
    """
    known = formats()
    source = tree.only or tree.root
    if name is not None:
        if name not in known:
            raise DataError(f"--format {name}: no such format; choose from {', '.join(known)}")
        files = known[name].find(tree)
        if not files:
            raise DataError(f"{source}: contains no {known[name].title} annotations (--format {name})")
        return known[name], files
    fitting = [(one, files) for one in known.values() if (files := one.find(tree))]
    if len(fitting) > 1:
        listed = "; ".join(f"{one.title} ({_named(tree, files)})" for one, files in fitting)
        names = ", ".join(one.name for one, _ in fitting)
        raise DataError(
            f"{source}: fits several formats: {listed}; choose one with --format ({names}), or use the annotation "
            "file or a subfolder"
        )
    return fitting[0] if fitting else None


def _named(tree: Tree, files: Sequence[Path]) -> str:
    shown = [str(path.relative_to(tree.root)) for path in files[:_SHOWN]]
    more = f", ... {counted(len(files), 'file')}" if len(files) > _SHOWN else ""
    return ", ".join(shown) + more
