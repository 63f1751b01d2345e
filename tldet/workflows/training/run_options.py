"""Options shared by the training commands: length, data, settings, output directory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tldet.errors import ConfigError, TrainingError
from tldet.text import counted
from tldet.workflows.options import ABOVE_0, COUNT, FROM_0, PRECISIONS, REQUIRED, SPLITS, flag, option
from tldet.workflows.requests import DataOptions, Request, RunRequest

if TYPE_CHECKING:
    from tldet.data.formats.source import SourceOptions

SETTINGS_TITLE = "training settings (default: those of the recipe or config)"
LENGTH_TITLE = "training length"
Unit = Literal["epochs", "minutes", "steps"]
UNITS: tuple[Unit, ...] = ("epochs", "minutes", "steps")


@dataclass(frozen=True)
class Length:
    """Length of training.

    Attributes:
        unit: ``epochs``, ``minutes`` of training time, or optimizer ``steps``.
        value: number of these; with 0 steps, the initial weights are evaluated and saved.
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


def epochs_option(length: str) -> Any:
    """Return the field of ``epochs``; ``length`` describes the default length."""
    return option(
        f"number of epochs (default: {length})",
        int,
        metavar="N",
        interval=COUNT,
        sets=["schedule.epochs"],
        exclusive="length",
        group=LENGTH_TITLE,
    )


@dataclass(frozen=True, kw_only=True)
class LengthOptions(Request):
    """Options of the training length, of which one may be given."""

    epochs: int | None = epochs_option("about 30, with at least 600 and at most 20,000 steps")
    minutes: float | None = option(
        "training time in minutes, not counting startup and evaluation",
        float,
        metavar="M",
        interval=ABOVE_0,
        sets=["schedule.minutes"],
        exclusive="length",
        group=LENGTH_TITLE,
    )
    steps: int | None = option(
        "number of training steps (0: evaluate the initial weights)",
        int,
        metavar="N",
        interval=FROM_0,
        sets=["schedule.steps"],
        exclusive="length",
        group=LENGTH_TITLE,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [flag(unit) for unit in UNITS if getattr(self, unit) is not None]
        if len(given) > 1:
            raise ConfigError(f"{given[0]} and {given[1]} cannot be combined")

    @property
    def length(self) -> Length | None:
        """The user-specified length."""
        given = ((unit, getattr(self, unit)) for unit in UNITS)
        return next((Length(unit, value) for unit, value in given if value is not None), None)


@dataclass(frozen=True, kw_only=True)
class BadImageOption(Request):
    """Option for images that cannot be used."""

    on_bad_image: str | None = option(
        "if images are missing, unreadable, truncated, or differ in size from the JSON: stop before training "
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


def _setting(help: str, kind: type = str, **details: Any) -> Any:
    """Return an option that sets a config key to its value."""
    return option(help, kind, setting=True, recorded=False, group=SETTINGS_TITLE, **details)


@dataclass(frozen=True, kw_only=True)
class SettingsOptions(Request):
    """Options that set a config key; ``cfg_options`` sets any other key."""

    batch_size: int | Literal["auto"] | None = _setting(
        "images per training batch, or 'auto': as many as fit into GPU memory, at most 64, and 4 on a CPU (default: "
        "chosen for the device, or that of the config)",
        int,
        metavar="N",
        interval=COUNT,
        auto=True,
        sets=["data.loader.batch_size"],
    )
    lr: float | None = _setting(
        "learning rate, used as given (default: learning rate of the recipe, scaled linearly to the batch size)",
        float,
        metavar="LR",
        interval=ABOVE_0,
        sets=["optimizer.lr", "optimizer.base_batch"],
    )
    device: str | None = _setting(
        "device: cpu, cuda, cuda:1, ... (default: auto, a GPU if there is one)", metavar="D", sets=["training.device"]
    )
    workers: int | None = _setting(
        "number of loader processes (default: 0 on a CPU; on a GPU the number of CPU cores minus 1, at most 8)",
        int,
        metavar="N",
        interval=FROM_0,
        sets=["data.loader.workers"],
    )
    precision: str | None = _setting(
        "training precision (default: auto, bf16 or fp16 on a GPU, the faster of fp32 and bf16 on a CPU)",
        choices=PRECISIONS,
        sets=["training.precision"],
    )
    on_oom: str | None = _setting(
        "if a training step runs out of memory: stop (error, default), or halve the micro-batch and double "
        "gradient accumulation (reduce; one process only)",
        choices=["error", "reduce"],
        sets=["training.on_oom"],
    )
    patience: int | None = _setting(
        "stop after N validations without improvement (default: never)",
        int,
        metavar="N",
        interval=COUNT,
        sets=["training.patience"],
    )
    compile: bool = _setting(
        "use torch.compile if a short test shows that it is faster", bool, sets=["training.compile"]
    )
    cfg_options: Sequence[str] = option(
        "set config keys, for example optimizer.lr=0.01",
        metavar="a.b=c",
        many=True,
        recorded=False,
        group=SETTINGS_TITLE,
    )


@dataclass(frozen=True, kw_only=True)
class NewRunOptions(RunRequest):
    """Options of a new run: output directory, seed, and resuming."""

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
