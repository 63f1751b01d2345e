"""Variants and runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.quality.datasets import Dataset
from benchmarks.quality.request import QualityRequest
from tldet.data.index import AnnotationIndex
from tldet.errors import ConfigError, DataError
from tldet.system.inputs import file_hash, real_path
from tldet.workflows.study.job import RUNS, Factor, Job, job_folder
from tldet.workflows.study.named import named_variants
from tldet.workflows.study.plan import check_seeds
from tldet.workflows.study.variants import Variant
from tldet.workflows.training.request import DEFAULT_MODEL

TLDET, LOOP = "tldet", "torchvision"  # names of variants
SPEED = "speed"  # in the output directory, one folder per variant and dataset
Speeds = Mapping[tuple[str, str], float]  # steps per minute by variant and dataset


def check_request(request: QualityRequest) -> None:
    """Check what needs no data.

    Raises:
        ConfigError: a value is given twice, or a seed is out of range.
        DataError: there is no script of the torchvision loop.
    """
    for option, values in (("datasets", request.datasets), ("budgets", request.budgets), ("seeds", request.seeds)):
        if len(set(values)) != len(values):
            raise ConfigError(f"--{option}: a value is given twice")
    check_seeds(request.seeds)
    if request.script is not None and not request.script.is_file():
        raise DataError(f"--baseline {request.script}: no such file; give the script, or none")


def chosen_variants(request: QualityRequest) -> dict[str, Variant | None]:
    """Return the variants by name, the one to compare with first; None for the torchvision loop.

    Raises:
        ConfigError: a variant is wrong, or there is no such reference.
    """
    found: dict[str, Variant | None] = {TLDET: Variant()}
    if request.variant:
        found.update(named_variants([TLDET, *request.variant], DEFAULT_MODEL))
    if LOOP in found:
        raise ConfigError(f"--variant {LOOP}: is the name of the torchvision loop; choose another one")
    if request.script is not None:
        found[LOOP] = None
    reference = request.reference or (LOOP if LOOP in found else TLDET)
    if reference not in found:
        raise ConfigError(f"--reference {reference}: no such variant; there are {', '.join(found)}")
    return {reference: found.pop(reference), **found}


@dataclass(frozen=True)
class Plan:
    """Variants and datasets.

    Attributes:
        request: the arguments.
        variants: variants by name.
        datasets: the datasets.
    """

    request: QualityRequest
    variants: Mapping[str, Variant | None]
    datasets: Sequence[Dataset]

    def speed_jobs(self) -> list[Job]:
        """Return one short timed run per variant and dataset."""
        folder, length = self.request.folder / SPEED, {"minutes": self.request.speed_minutes}
        return [self._job(v, d, {}, folder, length) for d in self.datasets for v in self.variants]

    def jobs(self, speeds: Speeds) -> list[Job]:
        """Return all runs, seed by seed and short budgets first: an interrupted benchmark compares all variants."""
        request, jobs = self.request, []
        order = [
            (n, b) for n in range(len(request.seeds)) for b in sorted(request.budgets) if n < len(request.seeds_of(b))
        ]
        for number, minutes in order:
            for data in self.datasets:
                for name in self.variants:
                    factors: dict[str, Factor] = {"minutes": minutes, "seed": request.seeds[number]}
                    length = {"steps": max(1, round(minutes * speeds[name, data.name]))}
                    jobs.append(self._job(name, data, factors, request.folder / RUNS, length))
        return jobs

    def _job(
        self, name: str, data: Dataset, factors: Mapping[str, Factor], folder: Path, length: Mapping[str, float]
    ) -> Job:
        every: dict[str, Factor] = {"variant": name, "dataset": data.name, **factors}
        hashes = {split: file_hash(one.annotations) for split, one in (("train", data.train), ("val", data.test))}
        if (variant := self.variants[name]) is None:
            assert self.request.script is not None
            hashes["script"] = file_hash(self.request.script)
        return Job(
            factors=every,
            folder=folder / job_folder(every),
            call=self._call(variant, data, int(factors.get("seed", 0))),
            length=length,
            val=(_text(data.test.annotations), _text(data.test.images)),
            images=len(AnnotationIndex.load(data.train.annotations)),
            data=hashes,
        )

    def _call(self, variant: Variant | None, data: Dataset, seed: int) -> dict[str, Any]:
        """Return the arguments of ``finetune``, or those of the torchvision loop."""
        train, test = data.train, data.test
        call: dict[str, Any] = {"train": _text(train.annotations), "val": _text(test.annotations), "seed": seed}
        if variant is None:
            return {**call, "images": _text(train.images), "val_images": _text(test.images)}
        images = _text(train.images) if train.images == test.images else None
        options = ["training.validate_every=None", *variant.options]
        return {**call, "images": images, "model": DEFAULT_MODEL, **variant.call, "cfg_options": options}


def _text(path: Path) -> str:
    return str(real_path(path))
