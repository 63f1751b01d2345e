"""Request of ``tldet merge``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tldet.workflows.options import REQUIRED, described, option
from tldet.workflows.requests import Request


@dataclass(frozen=True, kw_only=True)
class MergeRequest(Request):
    """Arguments of ``tldet merge``."""

    inputs: Sequence[str | Path] = field(
        kw_only=False,
        metadata=described(
            "two or more COCO JSON files or dataset folders", metavar="DATA", many=True, positional=True
        ),
    )
    out: str | Path = option("output directory, new or empty", default=REQUIRED, metavar="DIR")
    images: Sequence[str | Path] = option(
        "image directory of the JSON files, once for all of them or once for each (default: searched)",
        metavar="DIR",
        repeated=True,
    )
    aliases: str | Path | None = option(
        'JSON file of class names to merge: {"new name": ["old name", ...], ...}', metavar="FILE"
    )
    copy: bool = option("copy the images to --out (default: file names refer to the existing images)", bool)
