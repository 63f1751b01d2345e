"""Requests of ``tldet finetune``, ``train`` and ``pretrain``, and the options of transfer learning.

To add an option, add a field with its help text here or in a base class, and the code that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.errors import TrainingError
from tldet.workflows.options import ABOVE_0, SHARE, described, option, report_option
from tldet.workflows.requests import Request, RunRequest, options
from tldet.workflows.training.run_options import (
    BadImageOption,
    LengthOptions,
    NewRunOptions,
    SettingsOptions,
    TrainingDataOptions,
    epochs_option,
)

if TYPE_CHECKING:
    from tldet.config import Config
    from tldet.transfer.class_match import Fold

DEFAULT_MODEL = "faster_rcnn_lite0"
DEFAULT_BACKBONE = "efficientnet_lite0"  # of pretraining
_WORDS = {"all-but-head": ["backbone", "neck"]}  # of --freeze; every other word is a glob
_TITLE = "freezing and learning rates (default: those of the recipe)"


@dataclass(frozen=True, kw_only=True)
class MatchOptions(Request):
    """Options of class matching between the data and the initial weights; see :mod:`tldet.transfer.class_match`."""

    class_aliases: str | Path | None = option(
        "file that maps class names of the data to class names of the initial weights: JSON {name: pretrained name}, "
        "or lines 'name: pretrained name'",
        metavar="FILE",
        sets=["class_match.aliases"],
    )
    fold_names: Sequence[Fold] = option(
        "match class names ignoring letter case or plural (default: exact names only)",
        choices=["case", "plural"],
        many=True,
        sets=["class_match.fold"],
    )

    def written(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a config with these options.

        Raises:
            ConfigError: the file of aliases cannot be read.
        """
        from tldet.transfer.class_match import read_class_aliases

        config = dict(config)
        if self.class_aliases is not None:
            _set(config, "class_match", "aliases", read_class_aliases(self.class_aliases))
        if self.fold_names:
            _set(config, "class_match", "fold", list(self.fold_names))
        return config


@dataclass(frozen=True, kw_only=True)
class TransferOptions(MatchOptions):
    """Options of frozen layers and learning rates; None or empty keeps the setting of the recipe."""

    freeze: Sequence[str] = option(
        "freeze 'backbone', 'all-but-head', or modules and parameters that match a glob",
        metavar="WHAT",
        many=True,
        sets=["freeze.layers"],
        group=_TITLE,
    )
    gradual: float | None = option(
        "unfreeze the backbone stage by stage, starting from the last stage, over this share of the run (0.5 without a "
        "value)",
        float,
        metavar="SHARE",
        interval=SHARE,
        const=0.5,
        sets=["freeze.gradual"],
        group=_TITLE,
    )
    layer_decay: float | None = option(
        "learning rate of each layer group relative to the group above it",
        float,
        metavar="F",
        interval=SHARE,
        sets=["optimizer.layer_decay"],
        group=_TITLE,
    )
    l2_sp: float | None = option(
        "regularize the backbone towards its initial weights (L2-SP) with this strength instead of weight decay",
        float,
        metavar="A",
        interval=ABOVE_0,
        sets=["l2_sp.alpha"],
        group=_TITLE,
    )

    def written(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return a config with these options.

        Raises:
            ConfigError: the file of aliases cannot be read.
        """
        config = super().written(config)
        if self.freeze:
            _set(config, "freeze", "layers", [glob for word in self.freeze for glob in _WORDS.get(word, [word])])
        if self.gradual is not None:
            _set(config, "freeze", "gradual", self.gradual)
        if self.layer_decay is not None:
            _set(config, "optimizer", "layer_decay", self.layer_decay)
        if self.l2_sp is not None:
            config["l2_sp"] = {"alpha": self.l2_sp}
        return config

    def refuse_scratch(self) -> None:
        """Reject these options for a run from scratch; they need pretrained weights.

        Raises:
            TrainingError: an option is given.
        """
        given = self.given()
        named = [name for name in (one.replace("_", "-") for one in options(TransferOptions)) if name in given]
        if named:
            raise TrainingError(f"--scratch and --{named[0]} cannot be combined: it needs pretrained weights")


@dataclass(frozen=True, kw_only=True)
class RecipeOptions(Request):
    """Options of the recipe, its backbone, augmentation and initial weights."""

    model: str | None = option(f"recipe (default: {DEFAULT_MODEL}); see tldet models --detectors", metavar="NAME")
    backbone: str | None = option(
        "backbone (default: that of the recipe); see tldet models --backbones",
        metavar="B",
        sets=["model.backbone.name"],
    )
    augment: Sequence[str | Mapping[str, Any]] = option(
        "training transforms (default: those of the recipe): a preset (none, light, standard, strong), auto (a "
        "preset chosen by the number of images and the training length), names such as HorizontalFlip, or calls such "
        "as 'ColorJitter(p=0.3)'; images are resized first",
        metavar="LIST",
        many=True,
        sets=["data.train.transforms"],
    )
    input_size: str | None = option(
        "short side and limit of the long side of the images in pixels, such as 320x512 (default: chosen by the "
        "sizes of images and objects)",
        metavar="SIZE",
    )
    scratch: bool = option("train from random initial weights", bool)
    weights: str | Path | None = option(
        "initial weights: 'coco' (the recipe's published COCO weights), a detector checkpoint (tldet, MMDetection, "
        "torchvision, D-FINE or RT-DETRv2; classifier weights are copied by class name) or a backbone file (default: "
        "ImageNet backbone)",
        metavar="W",
        sets=["model.weights.source"],
        exclusive="initial weights",
    )
    init_from: str | Path | None = option(
        "initial weights from a tldet checkpoint", metavar="F", exclusive="initial weights"
    )


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(
    TrainingDataOptions, NewRunOptions, LengthOptions, RecipeOptions, BadImageOption, TransferOptions, SettingsOptions
):
    """Arguments of ``tldet finetune``."""

    report: bool = report_option()

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
    init_from: str | Path | None = option(
        "initial weights from a tldet checkpoint (default: those of the config)", metavar="F"
    )
    report: bool = report_option()


@dataclass(frozen=True, kw_only=True)
class PretrainRequest(NewRunOptions, LengthOptions, SettingsOptions):
    """Arguments of ``tldet pretrain``."""

    data: str | Path | None = field(
        default=None,
        kw_only=False,
        metadata=described(
            "image folder with train/CLASS/*.jpg and optionally val/CLASS/*.jpg; without val, 10 % of each class are "
            "held out for validation",
            metavar="DIR",
            exclusive="data",
        ),
    )
    epochs: int | None = epochs_option("100")
    demo: bool = option(
        "generate data/digits and data/digit_crops, and train on data/digit_crops", bool, exclusive="data"
    )
    backbone: str | None = option(
        f"backbone (default: {DEFAULT_BACKBONE}); see tldet models --backbones",
        metavar="B",
        sets=["model.backbone.name"],
    )
    report: bool = report_option()

    @property
    def network(self) -> str:
        """Name of the backbone."""
        return self.backbone or DEFAULT_BACKBONE

    def record(self) -> dict[str, Any]:
        """Return the options that a resumed run must have, with the backbone and the seed that were used."""
        return replace(self, backbone=self.network, seed=self.seed_value).given()


def _set(config: dict[str, Any], name: str, key: str, value: object) -> None:
    """Set a key in a copy of a section, which may be absent or None."""
    config[name] = {**(config.get(name) or {}), key: value}
