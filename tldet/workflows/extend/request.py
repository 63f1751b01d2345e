"""Request of ``tldet extend``."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tldet.workflows.options import described, option, report_option
from tldet.workflows.training.request import MatchOptions
from tldet.workflows.training.run_options import (
    BadImageOption,
    LengthOptions,
    NewRunOptions,
    SettingsOptions,
    TrainingDataOptions,
)


@dataclass(frozen=True, kw_only=True)
class ExtendRequest(TrainingDataOptions, NewRunOptions, LengthOptions, BadImageOption, MatchOptions, SettingsOptions):
    """Arguments of ``tldet extend``."""

    report: bool = report_option()

    checkpoint: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described("tldet checkpoint of the detector to extend", metavar="CKPT", positional=True),
    )
    data: str | Path | None = option(
        "folder with images and annotations of the new classes, or an annotation file", metavar="DATA"
    )
    train: str | Path | None = option(
        "training annotations of the new classes (default: those of --data)", metavar="FILE"
    )
    val: str | Path | None = option(
        "validation annotations of the new classes or of all classes (default: those of --data, or a fifth of the new "
        "images)",
        metavar="FILE",
    )
    images: str | Path | None = option(
        "image directory of the new images (default: found by file names)", metavar="DIR"
    )
    replay: str | Path | None = option(
        "annotations of old classes; their images are added to the training images", metavar="FILE"
    )
    replay_images: str | Path | None = option(
        "image directory of --replay (default: found by file names)", metavar="DIR"
    )
    old_val: str | Path | None = option(
        "validation annotations of old classes (default: --val; for old classes that it lacks, the test or validation "
        "split of CKPT)",
        metavar="FILE",
    )
    old_val_images: str | Path | None = option(
        "image directory of --old-val (default: found by file names)", metavar="DIR"
    )
    distill: bool = option(
        "fine-tune without distillation; classes that are not annotated on an image count as background",
        bool,
        default=True,
    )

    def record(self) -> dict[str, Any]:
        """Return the options that a resumed run must have, with the seed that was used."""
        return replace(self, seed=self.seed_value).given()
