"""A run is known by its settings, and results of other settings are not mixed in."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tldet.errors import ConfigError, DataError, TrainingError
from tldet.evaluation.resample import RESAMPLING_VERSION
from tldet.workflows.study.execute import DETECTIONS_NAME, up_to_date
from tldet.workflows.study.job import JOB_NAME, RESULT_NAME, Job, job_folder, save_settings, write_result
from tldet.workflows.study.job_queue import JobQueue

from .conftest import pretend


def test_names(make_job: Any) -> None:
    job = make_job("convnext/tiny", 3, 0.25)
    assert job.name == "convnext/tiny, fraction 0.25, seed 3"
    assert job.folder.name == "convnext-tiny_fraction0.25_seed3"
    assert job_folder({"variant": "a", "shots": 5}) == "a_shots5"


def test_a_result_is_read_again_with_its_settings(make_job: Any) -> None:
    job = make_job(seed=4)
    assert job.result() is None
    pretend(replace(job, steps=70))
    found = job.result()
    assert (found["variant"], found["seed"], found["images"], found["steps"]) == ("a", 4, 200, 70)
    assert not list(job.folder.glob(".*")), "nothing half-written is left"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"length": {"minutes": 4.0}}, "length.minutes was 3.0, now 4.0"),
        ({"length": {"steps": 9}}, "length.steps was None, now 9"),
        ({"call": {"options": ["x=2"]}}, r"call.options was \['x=1'\], now \['x=2'\]"),
        ({"data": {"train": "other"}}, "data.train was 'hash', now 'other'"),
    ],
)
def test_other_settings_are_refused(make_job: Any, change: dict[str, Any], message: str) -> None:
    job = make_job()
    pretend(job)
    with pytest.raises(TrainingError, match=f"{RESULT_NAME}: has a result of other settings: {message}.*another --out"):
        replace(job, **change).result()


def test_a_job_is_read_back_in_another_process(make_job: Any) -> None:
    job = replace(make_job(), steps=12)
    job.save()
    assert Job.read(job.folder) == job


def test_a_run_begun_with_other_settings_is_not_gone_on_with(make_job: Any) -> None:
    job = make_job()
    job.save()
    other = replace(job, call={"options": []})
    other.save()  # nothing was trained yet
    (job.folder / "step_00000004.pt").touch()
    other.save()
    with pytest.raises(TrainingError, match=f"{JOB_NAME}: has a result of other settings"):
        job.save()


@pytest.mark.parametrize("text", ["{", "[]", ""])
def test_a_broken_result_is_named(make_job: Any, text: str) -> None:
    job = make_job()
    job.folder.mkdir(parents=True)
    (job.folder / RESULT_NAME).write_text(text)
    with pytest.raises(DataError, match=f"{RESULT_NAME}: .* remove the file to repeat the run"):
        job.result()


def test_the_folder_of_a_study(make_job: Any, tmp_path: Path) -> None:
    save_settings(tmp_path, {"kind": "transfer", "model": "m"})
    save_settings(tmp_path, {"kind": "transfer", "model": "n"})  # there is no result yet
    pretend(make_job())
    save_settings(tmp_path, {"kind": "transfer", "model": "n"})
    with pytest.raises(TrainingError, match="contains results of `tldet study transfer`"):
        save_settings(tmp_path, {"kind": "data", "model": "n"})
    assert json.loads((tmp_path / "study.json").read_text())["model"] == "n"
    with pytest.raises(TrainingError, match="contains other files but no study"):
        save_settings(tmp_path / "runs", {"kind": "data"})
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / ".DS_Store").touch()
    save_settings(tmp_path / "new", {"kind": "data"})
    assert (tmp_path / "new" / "study.json").is_file(), "hidden files are no other files"


def test_folder_names_are_exact() -> None:
    def name(**factors: Any) -> str:
        return job_folder({"variant": "a", **factors})

    assert name(fraction=1.0, seed=0) == "a_fraction1_seed0"
    assert name(fraction=0.1, seed=20240101) == "a_fraction0.1_seed20240101"
    values: list[Any] = [20240101, 20240102, 10**17, 10**17 + 1, 0.1234567, 0.1234568, 0.1 + 0.2, 0.3]
    assert len({name(seed=value) for value in values}) == len(values)


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    def job(variant: str) -> Job:
        factors: dict[str, Any] = {"variant": variant, "seed": 0}
        return Job(factors, tmp_path / job_folder(factors), {}, {"steps": 1}, ("a", "b"), 1, {})

    JobQueue([job("a-b"), job("a-c")])
    with pytest.raises(ConfigError, match=r"a-b_seed0: runs 'a/b, seed 0' and 'a-b, seed 0' have the same folder"):
        JobQueue([job("a/b"), job("a-b")])


def test_intervals_leave_out_skipped_images(tmp_path: Path) -> None:
    images = [{"id": i, "width": 99, "height": 99, "file_name": f"{i}.png"} for i in range(3)]
    for one in images[:2]:
        cv2.imwrite(str(tmp_path / str(one["file_name"])), np.zeros((99, 99, 3), np.uint8))
    box = {"category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    objects = [{**box, "id": i + 1, "image_id": i} for i in range(3)]
    val = tmp_path / "val.json"
    content = {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "a"}]}
    val.write_text(json.dumps(content), encoding="utf-8")
    found = [{"image_id": i, "category_id": 1, "bbox": box["bbox"], "score": 0.9} for i in range(2)]
    call = {"on_bad_image": "skip"}
    job = Job({"variant": "a", "seed": 0}, tmp_path / "run", call, {"steps": 1}, (str(val), str(tmp_path)), 1, {})
    job.folder.mkdir()
    (job.folder / DETECTIONS_NAME).write_text(json.dumps(found), encoding="utf-8")
    drawn = up_to_date(job, write_result(job, {"steps": 1, "type": "bbox", "resampled_ap": [0.0]}))["resampled_ap"]
    assert set(drawn) == {1.0}, "AP of the evaluated images is 1, also on every draw of them"


@pytest.mark.parametrize("partial", [False, True])
def test_intervals_of_an_older_version_are_computed_again(tmp_path: Path, partial: bool) -> None:
    images = [{"id": i, "width": 99, "height": 99, "file_name": f"{i}"} for i in range(4)]
    if partial:
        images[1]["labeled_category_ids"] = [2]
    box = {"category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
    truth = {
        "images": images,
        "annotations": [{**box, "id": i + 1, "image_id": i} for i in (0, 2)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    found = [{"image_id": i, "category_id": 1, "bbox": box["bbox"], "score": 0.9 - i / 10} for i in (1, 0, 2)]
    val = tmp_path / "val.json"
    val.write_text(json.dumps(truth), encoding="utf-8")
    job = Job({"variant": "a", "seed": 0}, tmp_path / "run", {}, {"steps": 1}, (str(val), "b"), 1, {})
    job.folder.mkdir()
    (job.folder / DETECTIONS_NAME).write_text(json.dumps(found), encoding="utf-8")
    stored = write_result(job, {"steps": 1, "type": "bbox", "resampled_ap": [0.0] * 200})
    renewed = up_to_date(job, stored)
    assert renewed["resampling"] == RESAMPLING_VERSION
    assert {key: renewed[key] for key in stored if key != "resampled_ap"} == {
        key: value for key, value in stored.items() if key != "resampled_ap"
    }
    assert max(renewed["resampled_ap"]) == 1.0
    assert (min(v for v in renewed["resampled_ap"] if v >= 0) == 1.0) == partial
    assert job.result() == renewed
    assert up_to_date(job, renewed) is renewed
