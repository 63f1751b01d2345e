"""One run of a study: its settings, its folder and its result."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet import checkpoint
from tldet.data.file_names import is_hidden
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.system.output import write_json

RESULT_NAME = "result.json"  # in the folder of a finished run
JOB_NAME = "job.json"  # in the folder of a started run
STUDY_NAME = "study.json"  # in the output directory
RUNS = "runs"  # in the output directory, one folder per run
_COMMANDS = {
    "fewshot": "tldet fewshot",
    "quality": "python -m benchmarks quality",
}  # by kind; tldet study KIND for all others
Factor = str | int | float
_SETTINGS = ("factors", "call", "length", "val", "images", "data", "sources")  # fields that the result depends on


@dataclass(frozen=True)
class Job:
    """One run of a study.

    Attributes:
        factors: values that identify the run, in the order of its name; one of them is "variant".
        folder: folder of the run.
        call: keyword arguments of :func:`tldet.finetune` (without the length) or of another training function.
        length: ``{"minutes": 3}``, ``{"steps": 500}`` or ``{"epochs": 12}``.
        val: annotations and image folder of the evaluation.
        images: number of training images.
        data: further dependencies of the result, such as hashes of annotation files.
        steps: number of steps in the minutes of ``length``, once it is known for the variant.
        timed_by: variant whose number of steps the run uses; None for its own.
        sources: user datasets of the images, see :mod:`tldet.data.relabeled`.
    """

    factors: Mapping[str, Factor]
    folder: Path
    call: Mapping[str, Any]
    length: Mapping[str, float]
    val: tuple[str, str]
    images: int
    data: Mapping[str, str]
    steps: int | None = None
    timed_by: str | None = None
    sources: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variant(self) -> str:
        """Name of the variant."""
        return str(self.factors["variant"])

    @property
    def name(self) -> str:
        """Name of the run in messages: ``finetuned, fraction 0.1, seed 0``."""
        return ", ".join(f"{v}" if key == "variant" else f"{key} {exact(v)}" for key, v in self.factors.items())

    def settings(self) -> dict[str, Any]:
        """Return everything that the result depends on, as in JSON."""
        settings = {name: getattr(self, name) for name in _SETTINGS}
        known: dict[str, Any] = json.loads(json.dumps(settings))
        return known

    def result(self) -> dict[str, Any] | None:
        """Read the result of a finished run; None if the run is not finished.

        Raises:
            TrainingError: the result was made with other settings.
        """
        path = self.folder / RESULT_NAME
        if not path.is_file():
            return None
        found = read_object(path)
        refuse_changed(path, found.get("settings", {}), self.settings())
        return found

    def save(self) -> None:
        """Write the settings to the folder, or compare them with those of the run that was started there.

        Raises:
            TrainingError: a run with other settings was started there.
        """
        path = self.folder / JOB_NAME
        if path.is_file() and checkpoint.steps_in(self.folder):
            refuse_changed(path, read_object(path)["settings"], self.settings())
        write_json(path, {"settings": self.settings(), "steps": self.steps}, indent=1)

    @classmethod
    def read(cls, folder: Path) -> Job:
        """Read the run of a folder."""
        found = read_object(folder / JOB_NAME)
        settings = found["settings"]
        return cls(**{**settings, "val": tuple(settings["val"])}, folder=folder, steps=found["steps"])


def exact(value: Factor) -> str:
    """Format a factor as unique text: ``0.1``, ``1`` for 1.0, ``20240101``."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def refuse_shared_folders(jobs: Sequence[Job]) -> None:
    """Reject runs that would overwrite each other.

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


def write_result(job: Job, values: Mapping[str, Any]) -> dict[str, Any]:
    """Write the result of a finished run with its settings."""
    result = {**job.factors, "images": job.images, **values, "settings": job.settings()}
    write_json(job.folder / RESULT_NAME, result, indent=1)
    return result


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object that a study wrote.

    Raises:
        DataError: the file cannot be read or contains something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove the file to repeat the run") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: is not a result of a study; remove the file to repeat the run")
    return found


def refuse_changed(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Reject settings that differ from those of existing results.

    Raises:
        TrainingError: a setting differs; the message names it.
    """
    old, new = (dict(_flat(settings)) for settings in (before, now))
    for key in [*new, *old]:
        if old.get(key) != new.get(key):
            raise TrainingError(
                f"{path}: has a result of other settings: {key} was {old.get(key)!r}, now {new.get(key)!r}; choose "
                "another --out, or use the earlier settings"
            )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in settings.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found


def save_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Write the settings of a study to its folder, or compare them with those of the results there.

    Raises:
        TrainingError: the folder contains another study or other files.
        DataError: the folder cannot be written.
    """
    path, known = folder / STUDY_NAME, json.loads(json.dumps(settings))
    if path.is_file() and any(folder.glob(f"{RUNS}/*/{RESULT_NAME}")):
        before = read_object(path)
        if (kind := before.get("kind")) != known.get("kind"):
            command = _COMMANDS.get(str(kind), f"tldet study {kind}")
            raise TrainingError(f"{folder}: contains results of `{command}`; choose another --out")
        refuse_changed(path, before, known)
    elif not path.is_file() and folder.is_dir() and any(not is_hidden(one.name) for one in folder.iterdir()):
        raise TrainingError(f"{folder}: contains other files but no study ({STUDY_NAME}); choose another --out")
    else:
        write_json(path, known, indent=1)
