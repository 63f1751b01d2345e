"""A run is known by its settings, and results of other settings are not mixed in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tldet.errors import DataError, TrainingError
from tldet.workflows.study.job import JOB_NAME, RESULT_NAME, Job, folder_name, keep_settings

from .conftest import pretend


def test_names(make_job: Any) -> None:
    job = make_job("convnext/tiny", 3, 0.25)
    assert job.name == "convnext/tiny, fraction 0.25, seed 3"
    assert job.folder.name == "convnext-tiny_fraction0.25_seed3"
    assert folder_name({"arm": "a", "shots": 5}) == "a_shots5"


def test_a_result_is_found_again_and_says_what_it_is(make_job: Any) -> None:
    job = make_job(seed=4)
    assert job.result() is None
    pretend(replace(job, steps=70))
    found = job.result()
    assert (found["arm"], found["seed"], found["pictures"], found["steps"]) == ("a", 4, 200, 70)
    assert not list(job.folder.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"length": {"minutes": 4.0}}, "length.minutes was 3.0 and is 4.0"),
        ({"length": {"steps": 9}}, "length.steps was None and is 9"),
        ({"call": {"options": ["x=2"]}}, r"call.options was \['x=1'\] and is \['x=2'\]"),
        ({"data": {"train": "other"}}, "data.train was 'hash' and is 'other'"),
    ],
)
def test_other_settings_are_refused(make_job: Any, change: dict[str, Any], said: str) -> None:
    job = make_job()
    pretend(job)
    with pytest.raises(TrainingError, match=f"{RESULT_NAME}: holds a result of other settings: {said}.*another --out"):
        replace(job, **change).result()


def test_a_job_is_read_back_in_another_process(make_job: Any) -> None:
    job = replace(make_job(), steps=12)
    job.keep()
    assert Job.kept(job.folder) == job


def test_a_run_begun_with_other_settings_is_not_gone_on_with(make_job: Any) -> None:
    job = make_job()
    job.keep()
    other = replace(job, call={"options": []})
    other.keep()  # nothing was trained yet
    (job.folder / "step_00000004.pt").touch()
    other.keep()
    with pytest.raises(TrainingError, match=f"{JOB_NAME}: holds a result of other settings"):
        job.keep()


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_result_is_named(make_job: Any, text: str) -> None:
    job = make_job()
    job.folder.mkdir(parents=True)
    (job.folder / RESULT_NAME).write_text(text)
    with pytest.raises(DataError, match=f"{RESULT_NAME}: .* remove it to have the run made again"):
        job.result()


def test_the_folder_of_a_study(make_job: Any, tmp_path: Path) -> None:
    keep_settings(tmp_path, {"kind": "transfer", "model": "m"})
    keep_settings(tmp_path, {"kind": "transfer", "model": "n"})  # there is no result yet
    pretend(make_job())
    keep_settings(tmp_path, {"kind": "transfer", "model": "n"})
    with pytest.raises(TrainingError, match="kind was 'transfer' and is 'data'"):
        keep_settings(tmp_path, {"kind": "data", "model": "n"})
    assert json.loads((tmp_path / "study.json").read_text())["model"] == "n"
    with pytest.raises(TrainingError, match="holds something else than a study"):
        keep_settings(tmp_path / "runs", {"kind": "data"})
