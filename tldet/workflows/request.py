"""Requests: everything that a run is started by, with the names and defaults of both Python and the command line.

A further option is a field here, with its help text, and the line of code that uses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tldet.errors import ConfigError, TrainingError
from tldet.wording import counted
from tldet.workflows.options import ABOVE_0, COUNT, FROM_0, REQUIRED, Request, flag, option
from tldet.workflows.transfer_options import MatchOptions, TransferOptions

if TYPE_CHECKING:
    from tldet.config import Config

DEFAULT_MODEL = "faster_rcnn_lite0"
DEFAULT_BACKBONE = "efficientnet_lite0"  # of pretraining
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SPLITS = ("train", "val", "test")
SETTINGS_TITLE = "training settings (default: those of the recipe or config)"
Unit = Literal["epochs", "minutes", "steps"]
UNITS: tuple[Unit, ...] = ("epochs", "minutes", "steps")


@dataclass(frozen=True)
class Length:
    """Length of training.

    Attributes:
        unit: ``epochs``, ``minutes`` of training time, or optimizer ``steps``.
        value: how many; 0 steps evaluate and save the initial weights.
    """

    unit: Unit
    value: float

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Length:
        """Return the length in a ``schedule`` section, or in the record of a run."""
        return next(cls(unit, section[unit]) for unit in UNITS if section.get(unit) is not None)

    def section(self) -> dict[str, float]:
        """Return the key of the length in the ``schedule`` section of a config."""
        return {self.unit: self.value}

    def __str__(self) -> str:
        if self.unit == "minutes":
            return f"training time {self.value:g} min"
        return f"training length {counted(int(self.value), self.unit.removesuffix('s'))}"


@dataclass(frozen=True, kw_only=True)
class LengthOptions(Request):
    """Options of the length, of which one may be given."""

    epochs: int | None = option(
        "number of epochs", int, metavar="N", interval=COUNT, sets=["schedule.epochs"], exclusive="length"
    )
    minutes: float | None = option(
        "training time, without start-up and evaluation",
        float,
        metavar="M",
        interval=ABOVE_0,
        sets=["schedule.minutes"],
        exclusive="length",
    )
    steps: int | None = option(
        "number of training steps (0: evaluate the initial weights)",
        int,
        metavar="N",
        interval=FROM_0,
        sets=["schedule.steps"],
        exclusive="length",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [flag(unit) for unit in UNITS if getattr(self, unit) is not None]
        if len(given) > 1:
            raise ConfigError(f"{given[0]} and {given[1]} exclude each other")

    @property
    def length(self) -> Length | None:
        """The user-specified length."""
        given = ((unit, getattr(self, unit)) for unit in UNITS)
        return next((Length(unit, value) for unit, value in given if value is not None), None)


@dataclass(frozen=True, kw_only=True)
class BadImageOption(Request):
    """Option of images that cannot be used."""

    on_bad_image: str | None = option(
        "images that are missing, unreadable, truncated or of another size than in the JSON: stop before the run "
        "(error, default) or list and skip them",
        choices=["error", "skip"],
        sets=[f"data.{split}.on_bad_image" for split in SPLITS],
    )


@dataclass(frozen=True, kw_only=True)
class DataOptions(Request):
    """Options of the data: a folder, or its splits one by one; see :mod:`tldet.workflows.data_layout`."""

    data: str | Path | None = option("folder with images and COCO JSON", metavar="DIR", first=True)
    train: str | Path | None = option("training annotations", metavar="JSON", sets=["data.train.annotations"])
    val: str | Path | None = option("validation annotations", metavar="JSON", sets=["data.val.annotations"])
    images: str | Path | None = option(
        "image directory of all splits, or its name within each split (default: searched)", metavar="DIR"
    )


def _setting(help: str, kind: type = str, **details: Any) -> Any:
    """Return an option whose value is that of a key of the config."""
    return option(help, kind, setting=True, recorded=False, group=SETTINGS_TITLE, **details)


@dataclass(frozen=True, kw_only=True)
class SettingsOptions(Request):
    """Options that stand for a key of the config; ``cfg_options`` sets any other key."""

    batch_size: int | Literal["auto"] | None = _setting(
        "images per training batch; 'auto': the largest that fits into memory",
        int,
        metavar="N",
        interval=COUNT,
        auto=True,
        sets=["data.loader.batch_size"],
    )
    lr: float | None = _setting(
        "learning rate, used as given (default: that of the recipe, scaled linearly from its batch size to yours)",
        float,
        metavar="LR",
        interval=ABOVE_0,
        sets=["optimizer.lr", "optimizer.base_batch"],
    )
    device: str | None = _setting(
        "auto, cpu, cuda, cuda:1, ... (default: auto)", metavar="D", sets=["training.device"]
    )
    workers: int | None = _setting(
        "image loading processes; 0: none (default: chosen from device and CPU count)",
        int,
        metavar="N",
        interval=FROM_0,
        sets=["data.loader.workers"],
    )
    precision: str | None = _setting("precision of training", choices=PRECISIONS, sets=["training.precision"])
    on_oom: str | None = _setting(
        "if a training step runs out of memory: stop (error, default), or halve the micro-batch and double the "
        "gradient accumulation",
        choices=["error", "reduce"],
        sets=["training.on_oom"],
    )
    compile: bool = _setting("use torch.compile if it makes a measured step faster", bool, sets=["training.compile"])
    cfg_options: Sequence[str] = option(
        "set any key of the config", metavar="a.b=c", many=True, recorded=False, group=SETTINGS_TITLE
    )


@dataclass(frozen=True, kw_only=True)
class NewRunOptions(Request):
    """Options of a run that chooses its own config: output directory, seed, and whether it is resumed."""

    out: str | Path = option("output directory", default=REQUIRED, metavar="DIR", recorded=False)
    seed: int | None = option("random seed (default: 0)", int, metavar="S", sets=["training.seed"])
    resume: bool = option("resume the run in --out, or start it if there is no checkpoint yet", bool, recorded=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.seed is not None and self.seed < 0:
            raise TrainingError(f"--seed must be at least 0, not {self.seed}")

    @property
    def folder(self) -> Path:
        """The output directory."""
        return Path(self.out)

    @property
    def seed_value(self) -> int:
        """The seed, 0 by default."""
        return self.seed or 0


@dataclass(frozen=True, kw_only=True)
class FinetuneRequest(DataOptions, LengthOptions, NewRunOptions, BadImageOption, TransferOptions, SettingsOptions):
    """Everything that ``finetune`` is started by."""

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
class PretrainRequest(LengthOptions, NewRunOptions, SettingsOptions):
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
class ExtendRequest(DataOptions, LengthOptions, NewRunOptions, BadImageOption, MatchOptions, SettingsOptions):
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
