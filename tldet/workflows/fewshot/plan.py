"""Runs of a few-shot experiment, checked before training."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tldet.config import option_value, parse_options
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.relabeled import Sources
from tldet.data.shots import check_novel, draw_shots, write_shots
from tldet.errors import ConfigError, DataError
from tldet.system.inputs import file_hash
from tldet.workflows.fewshot.request import FewShotRequest
from tldet.workflows.fewshot.splits import ANNOTATIONS_FOLDER, find_fewshot_splits
from tldet.workflows.study.job import RUNS, Factor, Job, job_folder, save_settings
from tldet.workflows.study.plan import check_seeds
from tldet.workflows.study.variants import CONTROLLED, conflicting_key, refuse_controlled

log = logging.getLogger(__name__)
DEVICE = "training.device"
COSINE = "model.head.roi.cosine"
# Config keys that must not be changed in base training; its seed and length may be.
_OF_BASE = {key: text for key, text in CONTROLLED.items() if key != "training.seed" and not key.startswith("schedule.")}


@dataclass(frozen=True)
class _Variant:
    """Way to fine-tune on K shots.

    Attributes:
        frozen: train only the layers that classify and regress boxes.
        cosine: use a cosine classifier, see :class:`~tldet.models.cosine.CosineClassifier`.
    """

    frozen: bool
    cosine: bool

    def undone_by(self, options: Mapping[str, Any]) -> str | None:
        """Return the first config option that would undo the variant; None if there is none."""
        cosine = option_value(options, COSINE) or "none"  # "fixed" and "trainable" are both cosine classifiers
        controlled = [COSINE] if (cosine != "none") != self.cosine else []
        return conflicting_key(options, [*controlled, "freeze"] if self.frozen else controlled)


FEWSHOT_VARIANTS = {  # Wang et al. 2020: TFA with cosine similarity, TFA with a linear classifier, and FRCN+ft-full
    "tfa": _Variant(frozen=True, cosine=True),
    "fc": _Variant(frozen=True, cosine=False),
    "full": _Variant(frozen=False, cosine=False),
}


@dataclass(frozen=True)
class Setup:
    """An experiment and its data.

    Attributes:
        request: the user-specified arguments.
        train: split from which base classes and K shots are taken.
        val: validation split of base training.
        test: split of the reported metrics: the test split, or ``val`` if there is no test split.
        classes: all class names.
        model: recipe of base training.
        sources: user datasets of the images, see :mod:`tldet.data.relabeled`.
    """

    request: FewShotRequest
    train: Split
    val: Split
    test: Split
    classes: tuple[str, ...]
    model: str | None = None
    sources: Sources = field(default_factory=dict)

    @property
    def novel(self) -> tuple[str, ...]:
        """The novel classes."""
        return tuple(dict.fromkeys(self.request.novel))

    @property
    def base_classes(self) -> tuple[str, ...]:
        """The classes that are not novel."""
        return tuple(name for name in self.classes if name not in self.request.novel)

    def device(self) -> list[str]:
        """Return the config option of the device of every run; empty without one."""
        value = option_value(parse_options(self.request.overrides()), DEVICE)
        return [] if value is None else [f"{DEVICE}={value!r}"]

    def length(self) -> dict[str, float]:
        """Return the length of base training; empty for the default of the recipe."""
        return self.request.length.section() if self.request.length else {}

    def hashes(self) -> dict[str, str]:
        """Return hashes of the annotation files that the results depend on."""
        files = {"train": self.train.annotations, "test": self.test.annotations}
        return {name: file_hash(path) for name, path in files.items()}


def prepare_experiment(request: FewShotRequest) -> Setup:
    """Find and check the data; write the settings to the output directory.

    Raises:
        TldetError: the data has too few objects, a value is wrong, or the directory holds another experiment.
    """
    check_seeds(request.seeds)
    _refuse_options(request)
    save_settings(request.folder, _settings(request))
    layout, model, sources = find_fewshot_splits(request)
    assert layout.val is not None  # a single JSON is split
    index = AnnotationIndex.load(layout.train.annotations)
    setup = Setup(request, layout.train, layout.val, layout.test or layout.val, index.class_names, model, sources)
    check_novel(index, setup.novel)
    draw_shots(index, max(request.shots), seed=0)  # checks the number of objects, which no seed changes
    _check_test(setup)
    return setup


def _refuse_options(request: FewShotRequest) -> None:
    """Reject config options that replace the data of a run or undo a variant.

    Raises:
        ConfigError: an option does so, or is malformed.
    """
    refuse_controlled(parse_options(request.overrides()), controlled=_OF_BASE)
    options = parse_options(request.shot_options)
    refuse_controlled(options, "--shot-options", {**CONTROLLED, "schedule.steps": "use --shot-steps"})
    for name in request.variants:
        if conflict := FEWSHOT_VARIANTS[name].undone_by(options):
            raise ConfigError(f"--shot-options {conflict}: variant {name!r} sets this key; leave out one of them")


def _settings(request: FewShotRequest) -> dict[str, Any]:
    """Return the settings that all runs share; variants, shots and seeds may be added later."""
    settings = {"kind": "fewshot", "novel": sorted(set(request.novel)), "base": request.base and str(request.base)}
    return {**settings, "model": request.model, "options": request.overrides()}


def _check_test(setup: Setup) -> None:
    """Require objects of each novel class in the test split; log base classes without objects."""
    index = AnnotationIndex.load(setup.test.annotations)
    there = {index.class_names[label] for label in np.unique(index.labels[~index.crowd])}
    if missing := [name for name in setup.novel if name not in there]:
        advice = "use annotations that have some (--val)"
        if setup.test is not setup.val:  # with a test split, --val is not evaluated
            advice = (
                "runs are evaluated on the test split; to use a validation split, use --train and --val without --data"
            )
        raise DataError(
            f"{index.path}: has no object of novel class {missing[0]!r}, so its AP cannot be computed; {advice}"
        )
    if left_out := [name for name in setup.base_classes if name not in there]:
        log.warning("%s: has no object of %s: not in the base AP", index.path, ", ".join(left_out))


def shot_jobs(setup: Setup, start: Path) -> list[Job]:
    """Plan the K-shot runs and write their annotations.

    Args:
        setup: the experiment.
        start: checkpoint of base training.
    """
    data, request = {**setup.hashes(), "base": file_hash(start)}, setup.request
    combinations = dict.fromkeys(product(request.variants, request.shots, request.seeds))
    return [_shot_job(setup, start, *one, data) for one in combinations]


def _shot_job(setup: Setup, start: Path, variant: str, shots: int, seed: int, data: dict[str, str]) -> Job:
    request, test = setup.request, setup.test
    factors: dict[str, Factor] = {"variant": variant, "shots": shots, "seed": seed}
    name = f"{shots}shot_seed{seed}{'_background' if request.as_background else ''}.json"
    annotations, path = setup.train.annotations, request.folder / ANNOTATIONS_FOLDER / name
    subset = write_shots(annotations, shots, seed, path, as_background=request.as_background)
    call: dict[str, Any] = {"base": str(start.resolve()), "train": str(subset.path.resolve())}
    call |= {"images": str(setup.train.images.resolve()), "lr_factor": request.lr_factor}
    call["cfg_options"] = [*setup.device(), *request.shot_options]
    return Job(
        factors=factors,
        folder=request.folder / RUNS / job_folder(factors),
        call={**call, **request.bad_images()},
        length={"steps": request.shot_steps},
        val=(str(test.annotations.resolve()), str(test.images.resolve())),
        images=subset.images,
        data=data,
        sources=setup.sources,
    )
