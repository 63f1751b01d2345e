"""From what is asked for to the runs of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldet.config import parse_options
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.subsets import subset_size, write_subset
from tldet.engine.settings import SEEDS
from tldet.errors import ConfigError, DataError
from tldet.inputs import real_path
from tldet.transfer.sources import file_hash
from tldet.workflows.choose import Choices, choose_for
from tldet.workflows.data_layout import resolve_layout
from tldet.workflows.recipes import load_recipe
from tldet.workflows.request import DEFAULT_MODEL
from tldet.workflows.run_options import Length, LengthOptions
from tldet.workflows.runs import rhythm, steps_in_epoch
from tldet.workflows.study.arms import Arm, refuse_clash, refuse_same, refuse_unpaced
from tldet.workflows.study.job import RUNS, Job, exact, folder_name, keep_settings

SPLIT_SEED = 0  # of a JSON that is split into one to train and one to measure on: the same for every run


@dataclass(frozen=True)
class Wishes:
    """Settings that all runs of a study share.

    Attributes:
        data: see :func:`tldet.workflows.finetune.finetune`, as for all others but ``out`` and ``seeds``.
        out: output directory of the study.
        train: training annotations.
        val: validation annotations.
        images: image folder of both splits.
        on_bad_image: "error" or "skip" for images that cannot be used, in both splits; None means "error".
        model: a recipe.
        epochs: number of epochs of each run over its own images.
        minutes: training time of each run, converted to a number of steps once per variant.
        steps: number of steps of each run.
        seeds: seeds of the runs and of their training subsets.
        cfg_options: config overrides ``a.b=c`` for every run.
    """

    data: str | Path | None
    out: Path
    train: str | Path | None = None
    val: str | Path | None = None
    images: str | Path | None = None
    on_bad_image: str | None = None
    model: str = DEFAULT_MODEL
    epochs: int | None = None
    minutes: float | None = None
    steps: int | None = None
    seeds: Sequence[int] = (0, 1, 2)
    cfg_options: Sequence[str] = ()

    @property
    def length(self) -> Length | None:
        """The user-specified length of each run."""
        return LengthOptions(epochs=self.epochs, minutes=self.minutes, steps=self.steps).length

    def bad_images(self) -> dict[str, str]:
        """Return ``on_bad_image`` as keyword argument of a run; empty by default."""
        return {"on_bad_image": self.on_bad_image} if self.on_bad_image else {}


@dataclass(frozen=True)
class Plan:
    """The runs of a study.

    Attributes:
        jobs: the largest fraction first, seed by seed, so that a study cut short still compares all arms.
        val: the annotations that all are measured on.
        settings: what all runs share.
    """

    jobs: Sequence[Job]
    val: Path
    settings: Mapping[str, Any]


def make_plan(kind: str, wishes: Wishes, arms: Mapping[str, Arm], fractions: Sequence[float]) -> Plan:
    """The runs of every arm, fraction and seed; subsets are written, the settings kept in the study's folder.

    Size of the input, batch and length without a wish are chosen from all the pictures, so that they are the same at
    every fraction; the numbers are measured once, at the end.

    Raises:
        TldetError: the data, a name or a value is wrong, or the folder holds another study.
    """
    _check(wishes, fractions)
    refuse_clash(arms, wishes.cfg_options)
    refuse_unpaced(arms, wishes.minutes)
    refuse_same(arms, load_recipe(wishes.model))
    settings: dict[str, Any] = {"kind": kind, "model": wishes.model, "options": list(wishes.cfg_options)}
    keep_settings(wishes.out, settings)
    layout = resolve_layout(wishes.data, wishes.train, wishes.val, wishes.images, wishes.out, SPLIT_SEED)
    train, val = layout.train, layout.val
    assert val is not None  # a single JSON is split
    if AnnotationIndex.load(val.annotations).crowd.all():
        raise DataError(f"{val.annotations}: holds no object to measure on")
    index = AnnotationIndex.load(train.annotations)
    choices = choose_for(load_recipe(wishes.model), index, parse_options(wishes.cfg_options), wishes.length)
    hashes = {"train": file_hash(train.annotations), "val": file_hash(val.annotations)}
    shared = _Shared(wishes, train, val, index, choices, hashes)
    order = [(f, s, name) for s in wishes.seeds for f in sorted(fractions, reverse=True) for name in arms]
    jobs = [shared.job(name, arms[name], fraction, seed) for fraction, seed, name in order]
    return Plan(jobs, val.annotations, settings)


def _check(wishes: Wishes, fractions: Sequence[float]) -> None:
    for option, values in (("--seeds", wishes.seeds), ("--fractions", fractions)):
        if len(set(values)) != len(values):
            raise ConfigError(f"{option}: a value is given twice")
    check_seeds(wishes.seeds)
    for fraction in fractions:
        if not 0 < fraction <= 1:
            raise ConfigError(f"--fractions must be above 0 and at most 1, not {fraction:g}")


def check_seeds(seeds: Sequence[int]) -> None:
    """Refuse seeds that a run would refuse, before anything is written.

    Raises:
        ConfigError: a seed is out of range.
    """
    for seed in seeds:
        if not 0 <= seed < SEEDS:
            raise ConfigError(f"--seeds must be at least 0 and below 2**63, not {seed}")


@dataclass(frozen=True)
class _Shared:
    """What the jobs of a study are made from."""

    wishes: Wishes
    train: Split
    val: Split
    index: AnnotationIndex
    choices: Choices
    hashes: Mapping[str, str]

    def job(self, name: str, arm: Arm, fraction: float, seed: int) -> Job:
        """One run."""
        factors: dict[str, str | int | float] = {"arm": name, "fraction": fraction, "seed": seed}
        return Job(
            factors=factors,
            folder=self.wishes.out / RUNS / folder_name(factors),
            call={**self._call(seed), **arm.call, "cfg_options": self._options(arm, fraction, seed)},
            length=self.choices.length.section(),
            val=(_text(self.val.annotations), _text(self.val.images)),
            pictures=subset_size(len(self.index), fraction),
            data=self.hashes,
            pace=arm.pace,
        )

    def _call(self, seed: int) -> dict[str, Any]:
        train, val, data = self.train, self.val, self.wishes.data
        return {
            "data": None if data is None else _text(Path(data)),
            "train": _text(train.annotations),
            "val": _text(val.annotations),
            "images": _text(train.images) if train.images == val.images else self.wishes.images,
            "model": self.wishes.model,
            "seed": seed,
            **self.wishes.bad_images(),
        }

    def _options(self, arm: Arm, fraction: float, seed: int) -> list[str]:
        an_epoch = steps_in_epoch(len(self.index), self.choices.batch)
        every = rhythm(self.choices.length, an_epoch)["checkpoint_every"]
        if self.choices.length.unit != "epochs":
            every /= fraction  # as many steps between two checkpoints, whatever the number of pictures
        options = ["training.validate_every=None", f"training.checkpoint_every={every:g}"]
        options.append(f"data.loader.batch_size={self.choices.batch}")  # measured once, the same for all
        if fraction < 1:
            options.append(f"data.train.annotations={self._subset(fraction, seed)}")
        return [*options, *self.wishes.cfg_options, *arm.options]

    def _subset(self, fraction: float, seed: int) -> str:
        path = self.wishes.out / "data" / f"fraction{exact(fraction)}_seed{seed}.json"
        write_subset(self.train, fraction, seed, path)  # the same for the same data
        return _text(path)


def _text(path: Path) -> str:
    return str(real_path(path))
