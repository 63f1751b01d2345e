"""One run of a study: what it is, where it lies, and what it left."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.system.locks import is_unused
from tldet.system.output import write_json

RESULT_NAME = "result.json"  # in a run's folder, once it is finished
JOB_NAME = "job.json"  # in a run's folder, once it has begun
STUDY_NAME = "study.json"  # in the study's folder, before its first run
RUNS = "runs"  # in the study's folder, a folder a run
Factor = str | int | float


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        factors: what tells it from the others, in the order of its name; "variant" is always among them, and what is
            measured once a variant (the steps that a budget of minutes holds) holds for all its runs.
        folder: the run's.
        call: what it is trained by but for the length, plain values: keyword arguments of
            :func:`tldet.workflows.training.finetune.finetune`, or what another way to train takes.
        length: ``{"minutes": 3}``, ``{"steps": 500}`` or ``{"epochs": 12}``.
        val: the annotations and the image folder that it is measured on.
        images: that it trains on.
        data: what else its numbers depend on, such as the hashes of its annotation files.
        steps: that its budget of minutes holds, once its variant's are known.
        pace: the variant whose steps it takes; None for its own.
    """

    factors: Mapping[str, Factor]
    folder: Path
    call: Mapping[str, Any]
    length: Mapping[str, float]
    val: tuple[str, str]
    images: int
    data: Mapping[str, str]
    steps: int | None = None
    pace: str | None = None

    @property
    def variant(self) -> str:
        """The variant it belongs to."""
        return str(self.factors["variant"])

    @property
    def name(self) -> str:
        """Name of the run in messages: ``finetuned, fraction 0.1, seed 0``."""
        return ", ".join(f"{v}" if key == "variant" else f"{key} {exact(v)}" for key, v in self.factors.items())

    def settings(self) -> dict[str, Any]:
        """All that a result depends on, as JSON has it."""
        settings = {name: getattr(self, name) for name in ("factors", "call", "length", "val", "images", "data")}
        known: dict[str, Any] = json.loads(json.dumps(settings))
        return known

    def result(self) -> dict[str, Any] | None:
        """What it left when it was finished, or None.

        Raises:
            TrainingError: the result is one of other settings; they are not mixed.
        """
        path = self.folder / RESULT_NAME
        if not path.is_file():
            return None
        found = read_object(path)
        refuse_changed(path, found.get("settings", {}), self.settings())
        return found

    def keep(self) -> None:
        """Write down in its folder what it is, or hold it against what was begun there.

        Raises:
            TrainingError: a run of other settings was begun there.
        """
        path = self.folder / JOB_NAME
        if path.is_file() and checkpoint.steps_in(self.folder):
            refuse_changed(path, read_object(path)["settings"], self.settings())
        write_json(path, {"settings": self.settings(), "steps": self.steps}, indent=1)

    @classmethod
    def kept(cls, folder: Path) -> Job:
        """The run that was written down in a folder."""
        found = read_object(folder / JOB_NAME)
        settings = found["settings"]
        return cls(**{**settings, "val": tuple(settings["val"])}, folder=folder, steps=found["steps"])


def exact(value: Factor) -> str:
    """Format a factor as unique text: ``0.1``, ``1`` for 1.0, ``20240101``."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def refuse_shared_folders(jobs: Sequence[Job]) -> None:
    """Refuse runs that would overwrite each other.

    Raises:
        ConfigError: two runs have the same folder, ignoring letter case as some file systems do.
    """
    taken: dict[str, Job] = {}
    for job in jobs:
        other = taken.setdefault(str(job.folder).casefold(), job)
        if other is not job:
            raise ConfigError(
                f"{job.folder}: runs {other.name!r} and {job.name!r} have the same folder; leave out one of them"
            )


def job_folder(factors: Mapping[str, Factor]) -> str:
    """Build the folder name of a run from its factors: ``finetuned_fraction0.1_seed0``."""
    parts = (str(v).replace("/", "-") if key == "variant" else f"{key}{exact(v)}" for key, v in factors.items())
    return "_".join(parts)


def write_result(job: Job, found: Mapping[str, Any]) -> dict[str, Any]:
    """Write down what a finished run found, with the settings it was found by; whole or not at all."""
    result = {**job.factors, "images": job.images, **found, "settings": job.settings()}
    write_json(job.folder / RESULT_NAME, result, indent=1)
    return result


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object that a study wrote.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it to have the run made again") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: is no result of a study; remove it to have the run made again")
    return found


def refuse_changed(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Results of one kind of settings are not mixed with those of another.

    Raises:
        TrainingError: a setting differs; it is named.
    """
    old, new = (dict(_flat(settings)) for settings in (before, now))
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            raise TrainingError(
                f"{path}: holds a result of other settings: {key} was {old.get(key)!r} and is {new.get(key)!r}; "
                "choose another --out, or the settings of before"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def keep_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write a study's settings into its folder, or hold them against those that it has results of.

    Raises:
        TrainingError: the folder holds another study, or something else.
        DataError: it cannot be written.
    """
    path, known = folder / STUDY_NAME, json.loads(json.dumps(settings))
    if path.is_file() and any(folder.glob(f"{RUNS}/*/{RESULT_NAME}")):
        refuse_changed(path, read_object(path), known)
    elif not path.is_file() and folder.is_dir() and not is_unused(folder):
        raise TrainingError(f"{folder}: holds something else than a study (no {STUDY_NAME}); choose another --out")
    else:
        write_json(path, known, indent=1)
