"""Requests: everything that a run is started by, with the names and defaults of both Python and the command line.

A further option is a field here, or in one of the base classes, with its help text, and the code that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.workflows.options import REQUIRED, Request, option
from tldet.workflows.run_options import BadImageOption, DataOptions, LengthOptions, NewRunOptions, SettingsOptions
from tldet.workflows.transfer_options import MatchOptions, TransferOptions

if TYPE_CHECKING:
    from tldet.config import Config

DEFAULT_MODEL = "faster_rcnn_lite0"
DEFAULT_BACKBONE = "efficientnet_lite0"  # of pretraining


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Request):
    """Options of the recipe, its backbone, augmentation and initial weights."""

    model: str | None = option(f"recipe (default: {DEFAULT_MODEL}); see tldet models --detectors", metavar="NAME")
    backbone: str | None = option(
        "another backbone than the recipe's; see tldet models --backbones", metavar="B", sets=["model.backbone.name"]
    )
    augment: Sequence[str | Mapping[str, Any]] = option(
        "replace the recipe's training transforms: names such as HorizontalFlip, calls such as 'ColorJitter(p=0.3)', "
        "or none; images are resized first",
        metavar="LIST",
        many=True,
        sets=["data.train.transforms"],
    )
    scratch: bool = option("random initial weights", bool)
    weights: str | Path | None = option(
        "initial weights: 'coco' (the recipe's published COCO weights), a detector checkpoint (tldet, MMDetection or "
        "torchvision; classifier weights are copied by class name) or a backbone file (default: ImageNet backbone)",
        metavar="W",
        sets=["model.weights.source"],
        exclusive="initial weights",
    )
    init_from: str | Path | None = option(
        "tldet checkpoint with the initial weights", metavar="F", exclusive="initial weights"
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(
    DataOptions, NewRunOptions, RecipeOptions, LengthOptions, BadImageOption, TransferOptions, SettingsOptions
):
    """Everything that ``finetune`` is started by."""

    @property
    def recipe(self) -> str:
        """Name or file of the recipe."""
        return self.model or DEFAULT_MODEL

    def record(self) -> dict[str, Any]:
        """Return the options that a resumed run must have, with the recipe and the seed that were used."""
        return replace(self, model=self.recipe, seed=self.seed_value).given()


@dataclass(frozen=True, kw_only=True)
class TrainRequest(MatchOptions, BadImageOption, SettingsOptions):
    """Everything that ``train`` is started by."""

    config: str | Path | Config = option(
        "config file, or a name such as faster_rcnn/faster_rcnn_r50_fpn_1x_coco",
        default=REQUIRED,
        first=True,
        positional=True,
    )
    work_dir: str | Path | None = option("output directory (default: runs/CONFIG)", metavar="D")
    resume: bool = option("resume the run in --work-dir, or start it if there is no checkpoint yet", bool)
    init_from: str | Path | None = option("tldet checkpoint with the initial weights", metavar="F")


@dataclass(frozen=True, kw_only=True)
class PretrainRequest(NewRunOptions, LengthOptions, SettingsOptions):
    """Everything that ``pretrain`` is started by."""

    data: str | Path | None = option(
        "folder with train/CLASS/*.jpg and, if there is one, val/CLASS (default: a tenth of each class is held out)",
        metavar="DIR",
        first=True,
        exclusive="data",
    )
    demo: bool = option("generate data/digit_crops and train on it", bool, exclusive="data")
    backbone: str | None = option(
        f"see tldet models --backbones (default: {DEFAULT_BACKBONE})", metavar="B", sets=["model.backbone.name"]
    )

    @property
    def network(self) -> str:
        """Name of the backbone."""
        return self.backbone or DEFAULT_BACKBONE

    def record(self) -> dict[str, Any]:
        """Return the options that a resumed run must have, with the backbone and the seed that were used."""
        return replace(self, backbone=self.network, seed=self.seed_value).given()


@dataclass(frozen=True, kw_only=True)
class ExtendRequest(DataOptions, NewRunOptions, LengthOptions, BadImageOption, MatchOptions, SettingsOptions):
    """Everything that ``extend`` is started by."""

    checkpoint: str | Path | None = option(
        "tldet checkpoint of the detector to extend", metavar="CKPT", first=True, positional=True
    )
    data: str | Path | None = option("folder with images and COCO JSON of the new classes", metavar="DIR")
    train: str | Path | None = option("annotations of new classes to train on", metavar="JSON")
    val: str | Path | None = option("annotations of new classes, or of all, to evaluate on", metavar="JSON")
    images: str | Path | None = option("image directory of --train and --val", metavar="DIR")
    replay: str | Path | None = option(
        "annotations of images for old classes, which are added to the new images", metavar="JSON"
    )
    replay_images: str | Path | None = option("image directory of --replay (default: searched)", metavar="DIR")
    old_val: str | Path | None = option(
        "annotations to evaluate old classes on (default: --val, then the split that CKPT was evaluated on)",
        metavar="JSON",
    )
    old_val_images: str | Path | None = option("image directory of --old-val (default: searched)", metavar="DIR")
    distill: bool = option(
        "plain fine-tuning, for comparison: no teacher, and classes that are not annotated count as background",
        bool,
        default=True,
    )

    def record(self) -> dict[str, Any]:
        """Return the options that a resumed run must have, with the seed that was used."""
        return replace(self, seed=self.seed_value).given()
