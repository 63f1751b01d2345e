"""Requests of ``tldet study``, and the options that ``tldet fewshot`` shares with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tldet.data.presets import PRESETS
from tldet.workflows.options import COUNT, REQUIRED, SHARE, option
from tldet.workflows.training.request import DEFAULT_MODEL
from tldet.workflows.training.run_options import BadImageOption, LengthOptions, SettingsOptions, TrainingDataOptions

FRACTIONS = (0.05, 0.1, 0.25, 0.5, 1.0)  # of a learning curve
VARIANT_NAMES = ("scratch", "frozen", "finetuned", "gradual", "layer-decay")
_FRACTIONS = "fractions of the training images, nested and stratified by class"


@dataclass(frozen=True, kw_only=True)
class ExperimentRequest(TrainingDataOptions, LengthOptions, BadImageOption, SettingsOptions):
    """Arguments of an experiment of several runs on the same data.

    The length is that of each run. Minutes are converted to a number of steps once per variant.
    """

    out: str | Path = option("output directory", default=REQUIRED, metavar="DIR")
    model: str = option(
        f"recipe (default: {DEFAULT_MODEL}); see tldet models --detectors", default=DEFAULT_MODEL, metavar="NAME"
    )
    seeds: Sequence[int] = option(
        "random seeds of training and of the data subsets, one run each (default: 0 1 2)",
        int,
        default=(0, 1, 2),
        metavar="S",
        many=True,
    )

    @property
    def folder(self) -> Path:
        """The output directory."""
        return Path(self.out)

    def bad_images(self) -> dict[str, str]:
        """Return ``on_bad_image`` as keyword argument of a run; empty by default."""
        return {"on_bad_image": self.on_bad_image} if self.on_bad_image else {}


@dataclass(frozen=True, kw_only=True)
class StudyRequest(ExperimentRequest):
    """Arguments of every study."""

    fractions: Sequence[float] = option(
        f"{_FRACTIONS} (default: 1)", float, default=(1.0,), metavar="F", interval=SHARE, many=True
    )


@dataclass(frozen=True, kw_only=True)
class TransferStudyRequest(StudyRequest):
    """Arguments of ``tldet study transfer``."""

    variants: Sequence[str] = option(
        f"variants to compare: {', '.join(VARIANT_NAMES)} (default: all)",
        default=VARIANT_NAMES,
        metavar="VARIANT",
        many=True,
    )


@dataclass(frozen=True, kw_only=True)
class BackboneStudyRequest(StudyRequest):
    """Arguments of ``tldet study backbones``."""

    variants: Sequence[str] = option(
        "two or more backbones to compare; see tldet models --backbones",
        default=REQUIRED,
        metavar="BACKBONE",
        many=True,
        positional=True,
    )


@dataclass(frozen=True, kw_only=True)
class DataStudyRequest(StudyRequest):
    """Arguments of ``tldet study data``."""

    fractions: Sequence[float] = option(
        f"{_FRACTIONS} (default: {' '.join(f'{one:g}' for one in FRACTIONS)})",
        float,
        default=FRACTIONS,
        metavar="F",
        interval=SHARE,
        many=True,
    )
    predict: Sequence[int] = option(
        "predict the AP for N training images; repeatable (default: 2 and 4 times the available images)",
        int,
        metavar="N",
        interval=COUNT,
        repeated=True,
    )


@dataclass(frozen=True, kw_only=True)
class VariantStudyRequest(StudyRequest):
    """Arguments of ``tldet study variants``."""

    variants: Sequence[str] = option(
        "two or more variants NAME=KEY=VALUE[,KEY=VALUE...]; a key is an option of tldet finetune (model, input-size, "
        "lr, augment, batch-size, ...) or a config key such as optimizer.weight_decay, and NAME alone is the recipe "
        "without changes; all variants are compared with the first one (or the one named finetuned)",
        default=REQUIRED,
        metavar="VARIANT",
        many=True,
        positional=True,
    )


@dataclass(frozen=True, kw_only=True)
class AugmentStudyRequest(StudyRequest):
    """Arguments of ``tldet study augment``."""

    variants: Sequence[str] = option(
        f"presets to compare, or 'recipe' for the transforms of the recipe (default: {' '.join(PRESETS)})",
        default=PRESETS,
        choices=("recipe", *PRESETS),
        many=True,
    )
