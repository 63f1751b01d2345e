"""Request of ``tldet merge``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tldet.workflows.options import REQUIRED, described, format_option, option, voc_boxes_option
from tldet.workflows.requests import Request


@dataclass(frozen=True, kw_only=True)
class MergeRequest(Request):
    """Arguments of ``tldet merge``."""

    inputs: Sequence[str | Path] = field(
        kw_only=False,
        metadata=described(
            "two or more annotation files or dataset folders", metavar="DATA", many=True, positional=True
        ),
    )
    out: str | Path = option("output directory, new or empty", default=REQUIRED, metavar="DIR")
    images: Sequence[str | Path] = option(
        "image directory: one for all annotation files, or repeated, one per annotation file in the same order "
        "(default: found by file names)",
        metavar="DIR",
        repeated=True,
    )
    format: str | None = format_option()
    voc_boxes: Literal["continuous", "inclusive"] | None = voc_boxes_option()
    aliases: str | Path | None = option(
        'JSON file of class names to merge: {"new name": ["old name", ...], ...}', metavar="FILE"
    )
    copy: bool = option("copy the images to --out (default: refer to the existing files)", bool)
