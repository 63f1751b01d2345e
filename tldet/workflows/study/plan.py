"""From what is asked for to the runs of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tldet.config import parse_options
from tldet.data.subsets import subset_size
from tldet.errors import ConfigError
from tldet.evaluation.columns import GroundTruth
from tldet.system.determinism import SEEDS
from tldet.workflows.study.data import JsonData, StudyConfig, StudyData, own_study_data
from tldet.workflows.study.job import RUNS, Job, job_folder, keep_settings
from tldet.workflows.study.variants import Variant, refuse_conflict, refuse_same, refuse_unpaced
from tldet.workflows.training.choose import Choices, choose_for
from tldet.workflows.training.recipes import has_own_data, load_recipe
from tldet.workflows.training.run_config import rhythm, steps_in_epoch


@dataclass(frozen=True)
class Plan:
    """The runs of a study.

    Attributes:
        jobs: the largest fraction first, seed by seed, so that a study cut short still compares all variants.
        truth: ground truth of the images that all are evaluated on.
        settings: what all runs share.
    """

    jobs: Sequence[Job]
    truth: GroundTruth
    settings: Mapping[str, Any]


def make_plan(kind: str, config: StudyConfig, variants: Mapping[str, Variant], fractions: Sequence[float]) -> Plan:
    """The runs of every variant, fraction and seed; subsets are written, the settings kept in the study's folder.

    Size of the input, batch and length without a wish are chosen from all the images, so that they are the same at
    every fraction; the numbers are measured once, at the end.

    Raises:
        TldetError: the data, a name or a value is wrong, or the folder holds another study.
    """
    _check(config, fractions)
    refuse_conflict(variants, config.cfg_options)
    refuse_unpaced(variants, config.minutes)
    refuse_same(variants, load_recipe(config.model))
    settings: dict[str, Any] = {"kind": kind, "model": config.model, "options": list(config.cfg_options)}
    keep_settings(config.out, settings)
    options = parse_options(config.cfg_options)
    recipe = load_recipe(config.model)
    data: StudyData = own_study_data(recipe, config) if has_own_data(recipe) else JsonData.of(config)
    choices = choose_for(recipe, data.index, options, config.length)
    shared = _Shared(config, data, choices)
    order = [(f, s, name) for s in config.seeds for f in sorted(fractions, reverse=True) for name in variants]
    jobs = [shared.job(name, variants[name], fraction, seed) for fraction, seed, name in order]
    return Plan(jobs, data.truth(), settings)


def _check(config: StudyConfig, fractions: Sequence[float]) -> None:
    for option, values in (("--seeds", config.seeds), ("--fractions", fractions)):
        if len(set(values)) != len(values):
            raise ConfigError(f"{option}: a value is given twice")
    check_seeds(config.seeds)
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

    config: StudyConfig
    data: StudyData
    choices: Choices

    def job(self, name: str, variant: Variant, fraction: float, seed: int) -> Job:
        """One run."""
        factors: dict[str, str | int | float] = {"variant": name, "fraction": fraction, "seed": seed}
        call = {**self.data.call(), "model": self.config.model, "seed": seed, **self.config.bad_images()}
        return Job(
            factors=factors,
            folder=self.config.out / RUNS / job_folder(factors),
            call={**call, **variant.call, "cfg_options": self._options(variant, fraction, seed)},
            length=self.choices.length.section(),
            val=self.data.val,
            images=subset_size(len(self.data.index), fraction),
            data=self.data.hashes(),
            pace=variant.pace,
        )

    def _options(self, variant: Variant, fraction: float, seed: int) -> list[str]:
        an_epoch = steps_in_epoch(len(self.data.index), self.choices.batch)
        every = rhythm(self.choices.length, an_epoch)["checkpoint_every"]
        if self.choices.length.unit != "epochs":
            every /= fraction  # as many steps between two checkpoints, whatever the number of images
        options = ["training.validate_every=None", f"training.checkpoint_every={every:g}"]
        options.append(f"data.loader.batch_size={self.choices.batch}")  # measured once, the same for all
        if fraction < 1:
            options.append(self.data.subset(fraction, seed))
        return [*options, *self.config.cfg_options, *variant.options]
