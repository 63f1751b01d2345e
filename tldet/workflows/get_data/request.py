"""Request of ``tldet data get``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tldet.workflows.options import described, option
from tldet.workflows.requests import Request


@dataclass(frozen=True, kw_only=True)
class DataGetRequest(Request):
    """Arguments of ``tldet data get``."""

    name: str = field(
        kw_only=False,
        metadata=described(
            "dataset (coco, coco-minitrain, voc, penn-fudan, balloon, bccd), or a YAML file that describes another "
            "dataset; see docs/get_data.md",
            metavar="NAME",
            positional=True,
        ),
    )
    out: str | Path | None = option("output directory (default: data/NAME)", metavar="DIR")
    keep_archives: bool = option("keep the downloaded archives in DIR/.download (default: delete them)", bool)
