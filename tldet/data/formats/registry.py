"""Registry of the formats by name. To add a format, add a file to this folder that registers a :class:`Format`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tldet.data.formats.records import Dataset
from tldet.data.formats.tree import Tree

VocBoxes = Literal["auto", "continuous", "inclusive"]


@dataclass(frozen=True)
class ReadOptions:
    """Options of readers.

    Attributes:
        voc_boxes: meaning of the corners in Pascal VOC files; see :mod:`tldet.data.formats.voc`.
    """

    voc_boxes: VocBoxes = "auto"


@dataclass(frozen=True)
class Format:
    """A format of annotations.

    Attributes:
        name: value of ``--format``.
        title: name in messages.
        find: return the annotation files of this format, recognized by content.
        read: read these files.
    """

    name: str
    title: str
    find: Callable[[Tree], Sequence[Path]]
    read: Callable[[Tree, Sequence[Path], ReadOptions], Dataset]


_FORMATS: dict[str, Format] = {}


def register(one: Format) -> Format:
    """Add a format."""
    _FORMATS[one.name] = one
    return one


def formats() -> dict[str, Format]:
    """Return all formats by name, those in this folder included."""
    folder = importlib.import_module(__package__ or "tldet.data.formats")
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{folder.__name__}.{module.name}")
    return dict(sorted(_FORMATS.items()))
