"""Options of the data of the training commands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.errors import ConfigError
from tldet.workflows.data_options import DataOptions
from tldet.workflows.options import SPLITS, flag, option
from tldet.workflows.requests import Request

if TYPE_CHECKING:
    from tldet.data.formats.source import SourceOptions


@dataclass(frozen=True, kw_only=True)
class BadImageOption(Request):
    """Option for images that cannot be used."""

    on_bad_image: str | None = option(
        "if images are missing, unreadable, truncated or of another size than in the JSON: stop before training "
        "(error, default), or report and skip them (skip)",
        choices=["error", "skip"],
        sets=[f"data.{split}.on_bad_image" for split in SPLITS],
    )


@dataclass(frozen=True, kw_only=True)
class TrainingDataOptions(DataOptions):
    """Options of the dataset: a folder, or each split; see :mod:`tldet.data.split_paths`."""

    train: str | Path | None = option(
        "training annotations (default: those of --data)", metavar="FILE", sets=["data.train.annotations"]
    )
    val: str | Path | None = option(
        "validation annotations (default: those of --data, or a fifth of the training images)",
        metavar="FILE",
        sets=["data.val.annotations"],
    )
    images: str | Path | None = option(
        "image directory of all splits, or its name within each split (default: found by file names)", metavar="DIR"
    )
    classes: str | Path | None = option(
        "file with the names of the classes to use, in label order: one per line, a JSON list or COCO JSON (default: "
        "those of the annotations)",
        metavar="FILE",
    )

    def source(self, on_bad_image: str | None) -> SourceOptions:
        """Return the options for reading the annotations.

        Args:
            on_bad_image: see :class:`BadImageOption`.
        """
        return self.source_options(self.classes, missing=on_bad_image == "skip")

    def refuse_source(self, recipe: str) -> None:
        """Refuse the options of annotation files for a recipe with its own dataset.

        Raises:
            ConfigError: one is given.
        """
        for name in ("format", "voc_boxes", "classes"):
            if getattr(self, name) is not None:
                raise ConfigError(f"{flag(name)}: recipe {recipe} has its own dataset; leave {flag(name)} out")

    def paths(self) -> dict[str, str | Path | None]:
        """Return the user-specified paths by command-line option."""
        return {"--data": self.data, "--train": self.train, "--val": self.val, "--images": self.images}
