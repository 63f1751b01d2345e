"""A whole detector's weights as the start of another: tldet's own checkpoints, mmdet's and torchvision's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from tldet import checkpoint
from tldet.errors import CheckpointError
from tldet.models.detector import Detector
from tldet.transfer.archives import read_archive
from tldet.transfer.classes import classes_of
from tldet.transfer.foreign import read_foreign, translate
from tldet.transfer.known import entry
from tldet.transfer.sources import fetch
from tldet.transfer.weights import LoadReport, init_from, load_detector

Kind = Literal["tldet", "foreign", "backbone"]


def kind_of(path: Path) -> Kind:
    """What a weights file is: a tldet checkpoint, another toolkit's detector, or (anything else) a backbone.

    Raises:
        CheckpointError: it cannot be read.
    """
    if path.suffix == ".safetensors" and path.is_file():
        return "backbone"
    value = read_archive(path).value
    if isinstance(value, Mapping) and value.get("format") == checkpoint.FORMAT:
        return "tldet"
    return "backbone" if read_foreign(path).layout.case is None else "foreign"


def load_start(model: Detector, source: str) -> LoadReport:
    """Fill a detector from a source (see :mod:`tldet.transfer.sources`) that holds a whole one.

    Raises:
        CheckpointError: the source cannot be had, holds no detector, or nothing of it fits.
    """
    path = fetch(source)
    if kind_of(path) == "tldet":
        return init_from(model, path)
    foreign = read_foreign(path)
    known = entry(foreign.layout)
    if known is None:
        raise CheckpointError(f"{source}: holds no detector; a backbone's weights belong into model.backbone.weights")
    translated = translate(known, foreign.state, path)
    names = classes_of(known, foreign.content, foreign.layout.classes).names
    return load_detector(model, translated, names, source)
