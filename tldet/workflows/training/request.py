"""Requests of the training commands.

A further option is a field here, or in one of the base classes, with its help text, and the code that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.workflows.options import described, option
from tldet.workflows.requests import Request, RunRequest
from tldet.workflows.training.run_options import (
    BadImageOption,
    DataOptions,
    LengthOptions,
    NewRunOptions,
    SettingsOptions,
)
from tldet.workflows.training.transfer_options import MatchOptions, TransferOptions

if TYPE_CHECKING:
    from tldet.config import Config

DEFAULT_MODEL = "faster_rcnn_lite0"
DEFAULT_BACKBONE = "efficientnet_lite0"  # of pretraining


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Request):
    """Options of the recipe, its backbone, augmentation and initial weights."""

    model: str | None = option(f"recipe (default: {DEFAULT_MODEL}); see tldet models --detectors", metavar="NAME")
    backbone: str | None = option(
        "backbone in place of the recipe's; see tldet models --backbones", metavar="B", sets=["model.backbone.name"]
    )
    augment: Sequence[str | Mapping[str, Any]] = option(
        "training transforms in place of the recipe's: names such as HorizontalFlip, calls such as "
        "'ColorJitter(p=0.3)', or none; images are resized first",
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
        "initial weights, a tldet checkpoint", metavar="F", exclusive="initial weights"
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(
    DataOptions, NewRunOptions, LengthOptions, RecipeOptions, BadImageOption, TransferOptions, SettingsOptions
):
    """Arguments of ``tldet finetune``."""

    @property
    def recipe(self) -> str:
        """Name or file of the recipe."""
        return self.model or DEFAULT_MODEL

    def record(self) -> dict[str, Any]:
        """Return the options that a resumed run must have, with the recipe and the seed that were used."""
        return replace(self, model=self.recipe, seed=self.seed_value).given()


@dataclass(frozen=True, kw_only=True)
class TrainRequest(MatchOptions, BadImageOption, SettingsOptions, RunRequest):
    """Arguments of ``tldet train``."""

    config: str | Path | Config = field(
        kw_only=False,
        metadata=described("config file, or a name such as faster_rcnn/faster_rcnn_r50_fpn_1x_coco", positional=True),
    )
    work_dir: str | Path | None = option("output directory (default: runs/CONFIG)", metavar="D")
    resume: bool = option("resume the run in --work-dir, or start it if there is no checkpoint yet", bool)
    init_from: str | Path | None = option("initial weights, a tldet checkpoint", metavar="F")


@dataclass(frozen=True, kw_only=True)
class PretrainRequest(NewRunOptions, LengthOptions, SettingsOptions):
    """Arguments of ``tldet pretrain``."""

    data: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described(
            "image folder with train/CLASS/*.jpg and optionally val/CLASS/*.jpg (default: hold out 10 % of each class)",
            metavar="DIR",
            exclusive="data",
        ),
    )
    demo: bool = option("generate the dataset data/digit_crops and train on it", bool, exclusive="data")
    backbone: str | None = option(
        f"backbone (default: {DEFAULT_BACKBONE}); see tldet models --backbones",
        metavar="B",
        sets=["model.backbone.name"],
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
    """Arguments of ``tldet extend``."""

    checkpoint: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described("tldet checkpoint of the detector to extend", metavar="CKPT", positional=True),
    )
    data: str | Path | None = option(
        "folder with images and annotations of the new classes, or an annotation file", metavar="DATA"
    )
    train: str | Path | None = option("training annotations of the new classes", metavar="FILE")
    val: str | Path | None = option("validation annotations of the new classes or of all classes", metavar="FILE")
    images: str | Path | None = option("image directory of --train and --val", metavar="DIR")
    replay: str | Path | None = option(
        "annotations of old classes; their images are added to the training images", metavar="FILE"
    )
    replay_images: str | Path | None = option("image directory of --replay (default: searched)", metavar="DIR")
    old_val: str | Path | None = option(
        "validation annotations of old classes (default: --val, then the validation data of CKPT)",
        metavar="FILE",
    )
    old_val_images: str | Path | None = option("image directory of --old-val (default: searched)", metavar="DIR")
    distill: bool = option(
        "plain fine-tuning without a teacher; classes that are not annotated on an image count as background",
        bool,
        default=True,
    )

    def record(self) -> dict[str, Any]:
        """Return the options that a resumed run must have, with the seed that was used."""
        return replace(self, seed=self.seed_value).given()
