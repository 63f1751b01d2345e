"""What an experiment consists of, checked before anything is trained."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tldet.config import option_value, parse_options
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.shots import check_novel, draw_shots, write_shots
from tldet.data.split_paths import resolve_layout
from tldet.errors import DataError
from tldet.transfer.downloads import file_hash
from tldet.workflows.study.data import SPLIT_SEED, StudyConfig
from tldet.workflows.study.job import RUNS, Factor, Job, job_folder, keep_settings
from tldet.workflows.study.plan import check_seeds
from tldet.workflows.study.variants import refuse_controlled

log = logging.getLogger(__name__)
DEVICE = "training.device"
DATA = "data"  # in the experiment's folder, what was cut from the data set


@dataclass(frozen=True)
class _Variant:
    """A way to fine-tune on K shots.

    Attributes:
        frozen: all but the layers that classify and correct boxes stay as the base training left them.
        cosine: the classifier goes by directions, see :class:`~tldet.models.cosine.CosineClassifier`.
    """

    frozen: bool
    cosine: bool


FEWSHOT_VARIANTS = {  # Wang et al. 2020: TFA with cosine similarity, TFA with a plain classifier, and FRCN+ft-full
    "tfa": _Variant(frozen=True, cosine=True),
    "fc": _Variant(frozen=True, cosine=False),
    "full": _Variant(frozen=False, cosine=False),
}


@dataclass(frozen=True)
class FewShot:
    """What is asked for beside the data, the base training and the seeds.

    Attributes:
        novel: names of the novel classes.
        shots: numbers K of objects a class.
        variants: names of :data:`FEWSHOT_VARIANTS`.
        base: a tldet checkpoint of the base classes; None has them learned first.
        steps: length of a run on K shots.
        lr_factor: its learning rate as a multiple of the base training's.
        options: ``a.b=c`` on top of its config.
        as_background: see :func:`~tldet.data.shots.write_shots`.
    """

    novel: Sequence[str]
    shots: Sequence[int] = (1, 5, 10)
    variants: Sequence[str] = ("tfa",)
    base: Path | None = None
    steps: int = 300
    lr_factor: float = 0.1
    options: Sequence[str] = ()
    as_background: bool = False


@dataclass(frozen=True)
class Setup:
    """An experiment and its data.

    Attributes:
        config: data, base training, seeds, folder.
        asked: the rest.
        train: what K shots and base classes are drawn from.
        val: what the base training measures itself on.
        measured: what all numbers are measured on: the test split where there is one, else ``val``.
        classes: all class names.
    """

    config: StudyConfig
    asked: FewShot
    train: Split
    val: Split
    measured: Split
    classes: tuple[str, ...]

    @property
    def base_classes(self) -> tuple[str, ...]:
        """The classes that are not novel."""
        return tuple(name for name in self.classes if name not in self.asked.novel)

    def device(self) -> list[str]:
        """Return the option of the config that chooses the device of every run; empty without one."""
        value = option_value(parse_options(self.config.cfg_options), DEVICE)
        return [] if value is None else [f"{DEVICE}={value!r}"]

    def length(self) -> dict[str, float]:
        """Of the base training; empty where its recipe chooses."""
        return self.config.length.section() if self.config.length else {}

    def hashes(self) -> dict[str, str]:
        """Of the annotation files that the numbers depend on."""
        files = {"train": self.train.annotations, "measured": self.measured.annotations}
        return {name: file_hash(path) for name, path in files.items()}


def prepare_experiment(config: StudyConfig, asked: FewShot) -> Setup:
    """Find the data and hold what is asked for against them; keep it in the experiment's folder.

    Raises:
        TldetError: the data cannot give it, a value is wrong, or the folder holds another experiment.
    """
    check_seeds(config.seeds)
    refuse_controlled(asked.options)
    keep_settings(config.out, _settings(config, asked))
    layout = resolve_layout(config.data, config.train, config.val, config.images, config.out, SPLIT_SEED)
    assert layout.val is not None  # a lone JSON was split
    index = AnnotationIndex.load(layout.train.annotations)
    setup = Setup(config, asked, layout.train, layout.val, layout.test or layout.val, index.class_names)
    check_novel(index, asked.novel)
    draw_shots(index, max(asked.shots), seed=0)  # how many there are does not depend on the seed
    _check_measured(setup)
    return setup


def _settings(config: StudyConfig, asked: FewShot) -> dict[str, Any]:
    """What an experiment must not mix; variants, shots and seeds may be added."""
    settings = {"kind": "fewshot", "novel": sorted(set(asked.novel)), "base": asked.base and str(asked.base)}
    return {**settings, "model": config.model, "options": list(config.cfg_options)}


def _check_measured(setup: Setup) -> None:
    """Each novel class must have objects to be found; base classes that have none are named."""
    index = AnnotationIndex.load(setup.measured.annotations)
    there = {index.class_names[label] for label in np.unique(index.labels[~index.crowd])}
    if lacking := [name for name in setup.asked.novel if name not in there]:
        advice = "give annotations that have some (--val)"
        if setup.measured is not setup.val:  # with a test split, --val is not evaluated
            advice = (
                "runs are evaluated on the test split; to use a validation split, give --train and --val without --data"
            )
        raise DataError(
            f"{index.path}: has no object of novel class {lacking[0]!r}, so its AP cannot be computed; {advice}"
        )
    if unmeasured := [name for name in setup.base_classes if name not in there]:
        log.warning("%s: has no object of %s: not in the base AP", index.path, ", ".join(unmeasured))


def shot_jobs(setup: Setup, start: Path) -> list[Job]:
    """The runs on K shots, all seeds of one setting side by side; their JSON files are written.

    Args:
        setup: the experiment.
        start: the checkpoint of the base training.
    """
    data = {**setup.hashes(), "base": file_hash(start)}
    combinations = dict.fromkeys(product(setup.asked.variants, setup.asked.shots, setup.config.seeds))
    return [_shot_job(setup, start, *one, data) for one in combinations]


def _shot_job(setup: Setup, start: Path, variant: str, shots: int, seed: int, data: dict[str, str]) -> Job:
    asked, out, measured = setup.asked, setup.config.out, setup.measured
    factors: dict[str, Factor] = {"variant": variant, "shots": shots, "seed": seed}
    name = f"{shots}shot_seed{seed}{'_background' if asked.as_background else ''}.json"
    annotations, path = setup.train.annotations, out / DATA / name
    subset = write_shots(annotations, shots, seed, path, as_background=asked.as_background)
    call: dict[str, Any] = {"base": str(start.resolve()), "train": str(subset.path.resolve())}
    call |= {"images": str(setup.train.images.resolve()), "lr_factor": asked.lr_factor}
    call["cfg_options"] = [*setup.device(), *asked.options]
    return Job(
        factors=factors,
        folder=out / RUNS / job_folder(factors),
        call={**call, **setup.config.bad_images()},
        length={"steps": asked.steps},
        val=(str(measured.annotations.resolve()), str(measured.images.resolve())),
        images=subset.images,
        data=data,
    )
