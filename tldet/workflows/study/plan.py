"""Runs of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tldet.config import option_value, parse_options
from tldet.data.subsets import subset_size
from tldet.errors import ConfigError
from tldet.evaluation.columns import GroundTruth
from tldet.system.determinism import SEEDS
from tldet.workflows.study.data import JsonData, StudyData, own_study_data
from tldet.workflows.study.job import RUNS, Job, job_folder, save_settings
from tldet.workflows.study.request import StudyRequest
from tldet.workflows.study.variants import Variant, refuse_conflict, refuse_redundant, refuse_without_timing
from tldet.workflows.training.choose import Choices, choose_for
from tldet.workflows.training.recipes import has_own_data, load_recipe
from tldet.workflows.training.run_config import intervals_for, steps_in_epoch

_BATCH_SIZE = "data.loader.batch_size"


@dataclass(frozen=True)
class StudyPlan:
    """Runs of a study.

    Attributes:
        jobs: the runs, seed by seed and the largest fraction first, so that an interrupted study compares all variants.
        truth: ground truth of the evaluated images.
        settings: settings that all runs share.
    """

    jobs: Sequence[Job]
    truth: GroundTruth
    settings: Mapping[str, Any]


def make_plan(kind: str, request: StudyRequest, variants: Mapping[str, Variant]) -> StudyPlan:
    """Plan the runs of every variant, fraction and seed; write subsets and the settings to the output directory.

    Default input size, batch size and length depend on all images, so that they are equal for all fractions.

    Raises:
        TldetError: the data, a name or a value is wrong, or the directory holds another study.
    """
    _check(request)
    options = parse_options(request.overrides())
    refuse_conflict(variants, options)
    refuse_without_timing(variants, request.minutes)
    recipe = load_recipe(request.model)
    if kind == "transfer":
        refuse_redundant(variants, recipe)
    settings: dict[str, Any] = {"kind": kind, "model": request.model, "options": request.overrides()}
    save_settings(request.folder, settings)
    data: StudyData = own_study_data(recipe, request) if has_own_data(recipe) else JsonData.of(request)
    choices = choose_for(recipe, data.index, options, request.length)
    shared = _Shared(request, data, choices)
    fractions = sorted(request.fractions, reverse=True)
    order = [(fraction, seed, name) for seed in request.seeds for fraction in fractions for name in variants]
    jobs = [shared.job(name, variants[name], fraction, seed) for fraction, seed, name in order]
    return StudyPlan(jobs, data.truth(), settings)


def _check(request: StudyRequest) -> None:
    for option, values in (("--seeds", request.seeds), ("--fractions", request.fractions)):
        if len(set(values)) != len(values):
            raise ConfigError(f"{option}: a value is given twice")
    check_seeds(request.seeds)


def check_seeds(seeds: Sequence[int]) -> None:
    """Reject seeds out of range before anything is written.

    Raises:
        ConfigError: a seed is out of range.
    """
    for seed in seeds:
        if not 0 <= seed < SEEDS:
            raise ConfigError(f"--seeds must be at least 0 and below 2**63, not {seed}")


@dataclass(frozen=True)
class _Shared:
    """Request, data and choices that all jobs of a study share."""

    request: StudyRequest
    data: StudyData
    choices: Choices

    def job(self, name: str, variant: Variant, fraction: float, seed: int) -> Job:
        """Create the job of one run."""
        factors: dict[str, str | int | float] = {"variant": name, "fraction": fraction, "seed": seed}
        call = {**self.data.call(), "model": self.request.model, "seed": seed, **self.request.bad_images()}
        return Job(
            factors=factors,
            folder=self.request.folder / RUNS / job_folder(factors),
            call={**call, **variant.call, "cfg_options": self._options(variant, fraction, seed)},
            length=self.choices.length.section(),
            val=self.data.val,
            images=subset_size(len(self.data.index), fraction),
            data=self.data.hashes(),
            timed_by=variant.timed_by,
        )

    def _options(self, variant: Variant, fraction: float, seed: int) -> list[str]:
        every = intervals_for(self.choices.length, steps_in_epoch(len(self.data.index), self.choices.batch))[
            "checkpoint_every"
        ]
        if self.choices.length.unit != "epochs":
            every /= fraction  # an equal number of steps between checkpoints for all fractions
        options = ["training.validate_every=None", f"training.checkpoint_every={every:g}"]
        batch_size = f"{_BATCH_SIZE}={self.choices.batch}"  # chosen or measured once for all runs
        if _BATCH_SIZE not in parse_options(variant.options):
            options.append(batch_size)
        if fraction < 1:
            options.append(self.data.subset(fraction, seed))
        given = self.request.overrides()
        options += [*given, *variant.options]
        auto = option_value(parse_options(options), _BATCH_SIZE) == "auto"
        return [*options, batch_size] if auto else options
