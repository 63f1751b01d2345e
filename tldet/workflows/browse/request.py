"""Request of ``tldet browse``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.workflows.options import (
    COUNT,
    PROBABILITY,
    SPLITS,
    described,
    device_option,
    option,
    overwrite_option,
)
from tldet.workflows.requests import DataOptions


@dataclass(frozen=True, kw_only=True)
class BrowseRequest(DataOptions):
    """Arguments of ``tldet browse``."""

    data: str | Path = field(
        kw_only=False,
        metadata=described("dataset folder or annotation file, in any format", metavar="DATA", positional=True),
    )
    split: str = option("split to show (default: train)", default="train", choices=SPLITS)
    augmented: bool = option("also show each image after augmentation", bool)
    augment: Sequence[str | Mapping[str, Any]] = option(
        "transforms of --augmented: a preset (none, light, standard, strong), or names or calls as for tldet finetune "
        "(default: those of the default recipe of tldet finetune)",
        metavar="LIST",
        many=True,
    )
    model: str | Path | None = option(
        "detector checkpoint whose detections are shown next to the labels", metavar="CKPT"
    )
    device: str = device_option()
    score: float = option(
        "initial score threshold of the detections (default: 0.3)",
        float,
        default=0.3,
        metavar="T",
        interval=PROBABILITY,
    )
    count: int = option("number of images to show (default: 60)", int, default=60, metavar="N", interval=COUNT)
    seed: int = option("random seed of image selection and augmentation (default: 0)", int, default=0, metavar="S")
    html: str | Path = option(
        "output file, HTML page (default: browse.html)", default="browse.html", metavar="FILE", file=True
    )
    overwrite: bool = overwrite_option()
