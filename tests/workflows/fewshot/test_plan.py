"""Requests are checked before training, and recorded."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.data.index import AnnotationIndex
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.workflows.fewshot.fewshot import fewshot
from tldet.workflows.fewshot.plan import prepare_experiment, shot_jobs
from tldet.workflows.fewshot.request import FewShotRequest
from tldet.workflows.study.job import write_result
from tldet.workflows.study.job_queue import JobQueue


def truth(path: Path, counts: dict[str, int]) -> Path:
    categories = [{"id": i, "name": name} for i, name in enumerate(counts, 1)]
    names = [i for i, name in enumerate(counts, 1) for _ in range(counts[name])]
    annotations = [{"id": n, "image_id": 1, "category_id": c, "bbox": [0, 0, 5, 5]} for n, c in enumerate(names, 1)]
    whole: dict[str, Any] = {"images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}]}
    path.write_text(json.dumps({**whole, "categories": categories, "annotations": annotations}))
    return path


FEW: dict[str, Any] = {"novel": ("c",), "shots": (1, 3), "variants": ("tfa", "full")}


@pytest.fixture
def given(tmp_path: Path) -> FewShotRequest:
    train = truth(tmp_path / "train.json", {"a": 9, "b": 3, "c": 5})
    val = truth(tmp_path / "val.json", {"a": 1, "b": 1, "c": 1})
    return FewShotRequest(out=tmp_path / "out", train=train, val=val, images=tmp_path, seeds=(0, 1), **FEW)


def test_a_run_for_each_variant_number_and_seed(given: FewShotRequest, tmp_path: Path) -> None:
    setup = prepare_experiment(replace(given, shots=(1, 3, 1)))
    assert setup.base_classes == ("a", "b")
    (tmp_path / "base.pt").write_bytes(b"weights")
    jobs = shot_jobs(setup, tmp_path / "base.pt")
    assert [tuple(job.factors.values()) for job in jobs[:3]] == [("tfa", 1, 0), ("tfa", 1, 1), ("tfa", 3, 0)]
    assert len(jobs) == 8
    assert jobs[-1].folder.name == "full_shots3_seed1"
    assert jobs[2].call["train"] == jobs[6].call["train"], "variants learn from the same shots"
    assert np.bincount(AnnotationIndex.load(jobs[2].call["train"]).labels).tolist() == [3, 3, 3]
    paper = shot_jobs(replace(setup, request=replace(given, as_background=True)), tmp_path / "base.pt")
    assert AnnotationIndex.load(jobs[2].call["train"]).labeled is not None
    assert AnnotationIndex.load(paper[2].call["train"]).labeled is None
    (tmp_path / "base.pt").write_bytes(b"others")
    changed = shot_jobs(setup, tmp_path / "base.pt")
    write_result(jobs[0], {})
    with pytest.raises(TrainingError, match=r"has a result of other settings: data\.base"):
        changed[0].result()


def test_data_with_too_few_objects(given: FewShotRequest, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.json: class 'b' has only 3 objects, fewer than 4 shots"):
        prepare_experiment(replace(given, shots=(1, 4)))
    with pytest.raises(DataError, match="has no class 'd'"):
        prepare_experiment(replace(given, novel=("d",)))
    few = truth(tmp_path / "few.json", {"a": 1, "b": 1, "c": 0})
    with pytest.raises(DataError, match=r"few\.json: has no object of novel class 'c'"):
        prepare_experiment(replace(given, val=few))
    with pytest.raises(ConfigError, match=r"--seeds must be at least 0 and below 2\*\*63, not -1"):
        prepare_experiment(replace(given, seeds=(0, -1)))


@pytest.mark.parametrize(
    ("variants", "option"),
    [
        (("tfa",), "freeze.layers=[]"),
        (("full", "fc"), "freeze={}"),
        (("fc",), "model.head.roi.cosine='fixed'"),
        (("tfa",), "model.head.roi={}"),
        (("tfa",), "model.head.roi.cosine='none'"),
        (("tfa", "full"), "model.head.roi.cosine='trainable'"),
    ],
)
def test_options_do_not_undo_a_variant(given: FewShotRequest, variants: tuple[str, ...], option: str) -> None:
    with pytest.raises(ConfigError, match=rf"^--shot-options \S+: variant '{variants[-1]}' sets this key"):
        prepare_experiment(replace(given, variants=variants, shot_options=[option]))
    free = ["freeze.layers=['backbone']", "optimizer.lr=0.1"]
    prepare_experiment(replace(given, variants=("full",), shot_options=free))
    prepare_experiment(replace(given, variants=("tfa",), shot_options=["model.head.roi.cosine='trainable'"]))


@pytest.mark.parametrize("option", ["data.train.annotations='all.json'", "data={}", "training.validate_every=1"])
def test_options_do_not_replace_the_data(given: FewShotRequest, option: str) -> None:
    with pytest.raises(ConfigError, match=r"^--cfg-options \S+: the experiment sets this key"):
        prepare_experiment(replace(given, cfg_options=[option]))
    with pytest.raises(ConfigError, match=r"^--shot-options \S+: the experiment sets this key"):
        prepare_experiment(replace(given, shot_options=[option]))
    prepare_experiment(replace(given, cfg_options=["training.seed=1", "schedule.policy='constant'"]))


def test_the_length_of_shots_has_its_own_option(given: FewShotRequest) -> None:
    with pytest.raises(ConfigError, match=r"^--shot-options schedule\.steps: .*; use --shot-steps$"):
        prepare_experiment(replace(given, shot_options=["schedule.steps=5"]))


def test_the_advice_beside_a_test_split_works(tmp_path: Path) -> None:
    """With a test split --val changes nothing that is evaluated on."""
    for split, novel in (("train", 5), ("valid", 1), ("test", 0)):
        (tmp_path / "data" / split).mkdir(parents=True)
        path = truth(tmp_path / "data" / split / "_annotations.coco.json", {"a": 9, "b": 3, "c": novel})
        (path.parent / "a.jpg").touch()
    given = FewShotRequest(tmp_path / "data", out=tmp_path / "out", **FEW)
    val = tmp_path / "data" / "valid" / "_annotations.coco.json"
    for one in (given, replace(given, val=val)):
        with pytest.raises(
            DataError, match=r"test.*'c'.* runs are evaluated on the test split; .* --val without --data"
        ):
            prepare_experiment(one)
    train = tmp_path / "data" / "train" / "_annotations.coco.json"
    alone = FewShotRequest(out=tmp_path / "new", train=train, val=val, **FEW)
    assert prepare_experiment(alone).test.annotations == val


def test_a_base_class_that_cannot_be_evaluated_is_named(
    given: FewShotRequest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    few = truth(tmp_path / "few.json", {"a": 1, "b": 0, "c": 1})
    prepare_experiment(replace(given, val=few))
    assert "few.json: has no object of b: not in the base AP" in caplog.text


def test_a_folder_holds_one_experiment(given: FewShotRequest, tmp_path: Path) -> None:
    setup = prepare_experiment(given)
    (tmp_path / "base.pt").write_bytes(b"weights")
    write_result(shot_jobs(setup, tmp_path / "base.pt")[0], {})
    prepare_experiment(replace(given, seeds=(7,), shots=(2,), variants=("fc",)))
    with pytest.raises(TrainingError, match="other settings: novel was"):
        prepare_experiment(replace(given, novel=("b",)))
    with pytest.raises(TrainingError, match="other settings: model was"):
        prepare_experiment(replace(given, model="mask_rcnn_lite0"))


def test_seeds_of_eight_digits_have_folders_of_their_own(given: FewShotRequest, tmp_path: Path) -> None:
    (tmp_path / "base.pt").write_bytes(b"weights")
    setup = prepare_experiment(replace(given, seeds=(20240101, 20240102), shots=(1,), variants=("tfa",)))
    jobs = shot_jobs(setup, tmp_path / "base.pt")
    assert [job.folder.name for job in jobs] == ["tfa_shots1_seed20240101", "tfa_shots1_seed20240102"]
    assert [Path(job.call["train"]).name for job in jobs] == ["1shot_seed20240101.json", "1shot_seed20240102.json"]
    assert [job.factors["seed"] for job in jobs] == [20240101, 20240102]
    assert len(JobQueue(jobs, lambda _: None).jobs) == 2


def test_runs_of_one_folder_are_refused(given: FewShotRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tldet.workflows.fewshot.plan.job_folder", lambda factors: f"{float(factors['seed']):g}")
    monkeypatch.setattr("tldet.workflows.fewshot.fewshot.execute", lambda *_: {"checkpoint": tmp_path / "base.pt"})
    monkeypatch.setattr("tldet.workflows.fewshot.fewshot.open_base", lambda *_: {})
    monkeypatch.setattr("tldet.workflows.fewshot.fewshot.check_variants", lambda _: None)
    (tmp_path / "base.pt").write_bytes(b"weights")
    asked = replace(given, seeds=(20240101, 20240102), shots=(1,), variants=("tfa",))
    with pytest.raises(ConfigError, match=r"2\.02401e\+07: runs .*20240101' and .*20240102' have the same folder"):
        fewshot(**vars(asked))
