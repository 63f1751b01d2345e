"""A small study; errors are one line, before training."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tldet import checkpoint
from tldet.cli.main import main
from tldet.config import option_value, parse_options
from tldet.data.index import AnnotationIndex
from tldet.errors import ConfigError, DataError
from tldet.evaluation.coco import evaluate_files
from tldet.workflows.study.api import study
from tldet.workflows.study.execute import DETECTIONS_NAME, execute
from tldet.workflows.study.job import RESULT_NAME, write_result
from tldet.workflows.study.job_queue import JobQueue, run_parallel
from tldet.workflows.study.plan import make_plan
from tldet.workflows.study.request import VARIANT_NAMES, TransferStudyRequest
from tldet.workflows.study.variants import VARIANTS, transfer_variants
from tldet.workflows.study.workers import Worker
from tldet.workflows.training.finetune import finetune

OPTIONS = ["training.precision=fp32", "data.loader.batch_size=2", "model.head.settings.score_thr=0.001"]


USUAL: dict[str, Any] = {"model": "retinanet_lite0", "steps": 3, "seeds": [0], "cfg_options": OPTIONS}


def request_of(digits: Path | None, out: Path, **more: Any) -> TransferStudyRequest:
    return TransferStudyRequest(digits, out=out, **{**USUAL, **more})


def test_the_automatic_batch_size_is_the_same_for_all_runs(digits: Path, tmp_path: Path) -> None:
    auto = request_of(digits, tmp_path / "s", cfg_options=["data.loader.batch_size='auto'"])
    plan = make_plan("transfer", auto, transfer_variants(["scratch", "frozen"]))
    sizes = [option_value(parse_options(job.call["cfg_options"]), "data.loader.batch_size") for job in plan.jobs]
    assert sizes == [4, 4], "not measured anew by each run, in which other layers may be frozen"


def command(digits: Path, out: Path, *more: str) -> list[str]:
    return ["study", "transfer", "--data", str(digits), "--out", str(out), "--model", "retinanet_lite0", *more]


def test_a_plan_lists_every_run_with_its_differences(digits: Path, tmp_path: Path) -> None:
    variants = transfer_variants(["scratch", "frozen"])
    given = request_of(digits, tmp_path / "s", seeds=[0, 5], fractions=[0.6, 1.0])
    plan = make_plan("transfer", given, variants)
    assert [job.name for job in plan.jobs[:5]] == [
        "scratch, fraction 1, seed 0",
        "frozen, fraction 1, seed 0",
        "scratch, fraction 0.6, seed 0",
        "frozen, fraction 0.6, seed 0",
        "scratch, fraction 1, seed 5",
    ]
    scratch, frozen, part = plan.jobs[:3]
    frozen_options = [*scratch.call["cfg_options"], "freeze.layers=['backbone']"]
    assert frozen.call == {**{k: v for k, v in scratch.call.items() if k != "scratch"}, "cfg_options": frozen_options}
    assert scratch.call["scratch"] is True
    named = [option for option in part.call["cfg_options"] if option.startswith("data.train.annotations=")]
    subset = AnnotationIndex.load(named[0].partition("=")[2])
    assert len(subset) == part.images == 10
    assert [job.data for job in plan.jobs] == [scratch.data] * 8
    again = make_plan("transfer", given, variants)
    assert [job.settings() for job in again.jobs] == [job.settings() for job in plan.jobs]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--variants", "scratch", "frosen"], "--variants frosen: no such variant; did you mean 'frozen'?"),
        (["--fractions", "0.1"], "no object of class '"),
        (["--fractions", "0.5", "0.5"], "--fractions: a value is given twice"),
        (
            ["--variants", "scratch", "gradual", "--minutes", "1"],
            "--minutes needs variant 'finetuned' to determine the number of steps",
        ),
        (["--seeds", "-1"], "--seeds must be at least 0 and below 2**63, not -1"),
        (["--seeds", "0", str(2**63)], f"--seeds must be at least 0 and below 2**63, not {2**63}"),
        (["--cfg-options", "optimizer.layer_decay=0.8"], "variant 'layer-decay' sets this key"),
    ],
)
def test_errors_are_one_line(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(command(digits, tmp_path / "s", *more)) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1].startswith("tldet study: error: ")
    assert message in lines[-1]
    assert not any("Traceback" in line for line in lines)
    assert not (tmp_path / "s" / "runs").exists()


def test_errors_of_other_kinds(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--data", str(digits), "--out", str(tmp_path / "s"), "--model", "retinanet_lite0"]
    assert main(["study", "backbones", "resnet18", *shared]) == 2
    assert "specify two or more backbones to compare" in capsys.readouterr().err
    assert main(["study", "data", "--fractions", "1", "--predict", "100", *shared]) == 2
    assert "--predict 100: at most 4 times the number of training images (16)" in capsys.readouterr().err
    assert main(["study", "data", "--out", str(tmp_path / "s")]) == 2
    assert "use --data DIR" in capsys.readouterr().err


def test_skipped_images_are_not_counted(digits: Path, tmp_path: Path) -> None:
    truth = json.loads((digits / "valid" / "_annotations.coco.json").read_text())
    there = len(truth["images"])
    truth["images"].append({**truth["images"][0], "id": 999_999, "file_name": "missing.jpg"})
    (tmp_path / "val.json").write_text(json.dumps(truth))
    annotations = {"train": digits / "valid" / "_annotations.coco.json", "val": tmp_path / "val.json"}
    skipping = request_of(None, tmp_path / "s", **annotations, images=digits / "valid", on_bad_image="skip")
    plan = make_plan("transfer", skipping, transfer_variants(["scratch"]))
    assert len(plan.truth.image_ids) == there


def test_a_folder_of_another_kind_of_study_is_refused(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = make_plan("transfer", request_of(digits, tmp_path / "s"), transfer_variants(["scratch"]))
    write_result(plan.jobs[0], {})
    assert main(["study", "data", "--data", str(digits), "--out", str(tmp_path / "s")]) == 2
    expected = "s: contains results of `tldet study transfer`; choose another --out"
    assert expected in capsys.readouterr().err


def test_the_listed_variants_are_those_there_are() -> None:
    assert tuple(VARIANTS) == VARIANT_NAMES


def test_validation_data_without_objects(digits: Path, tmp_path: Path) -> None:
    truth = json.loads((digits / "valid" / "_annotations.coco.json").read_text())
    (tmp_path / "val.json").write_text(json.dumps({**truth, "annotations": []}))
    empty = request_of(digits, tmp_path / "s", val=tmp_path / "val.json", images=digits / "valid")
    with pytest.raises(DataError, match=r"val.json: has no object to evaluate on"):
        make_plan("transfer", empty, transfer_variants(["scratch"]))


@pytest.mark.slow
def test_a_study(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "s"
    report = study("transfer", digits, out=out, variants=["scratch", "frozen"], **USUAL)
    assert [run["steps"] for run in report.runs] == [3, 3]
    assert "one seed: significance unknown" in report.lines[0]
    for run in json.loads((out / "results.json").read_text())["runs"]:
        folder = Path(run["checkpoint"]).parent
        scored = evaluate_files(digits / "valid" / "_annotations.coco.json", folder / DETECTIONS_NAME)
        assert run["numbers"] == scored.numbers()
        assert checkpoint.steps_in(folder) == []
    frozen = checkpoint.load_checkpoint(out / "runs" / "frozen_fraction1_seed0" / "best.pt")
    assert not list(out.rglob("report.html")), "runs of a study write no report"
    assert frozen["config"]["freeze"] == {"layers": ["backbone"]}
    before = {path: path.stat().st_mtime_ns for path in out.rglob(RESULT_NAME)}
    assert len(before) == 2
    study("transfer", digits, out=out, variants=["scratch", "frozen"], **USUAL)
    assert {path: path.stat().st_mtime_ns for path in out.rglob(RESULT_NAME)} == before


@pytest.mark.slow
def test_one_json_is_split_once_for_all_runs(digits: Path, tmp_path: Path) -> None:
    single = tmp_path / "data"
    shutil.copytree(digits / "train", single)
    report = study("data", single, out=tmp_path / "s", **{**USUAL, "seeds": [0, 1], "steps": 1}, fractions=[1.0, 0.9])
    assert {run["images"] for run in report.runs} == {13, 12}
    vals = {run["settings"]["val"][0] for run in report.runs}
    assert vals == {str(tmp_path / "s" / "split" / "val.json")}
    assert report.lines[0].startswith("no learning curve: 2 numbers of images")


@pytest.mark.slow
def test_a_run_killed_before_its_result_resumes(digits: Path, tmp_path: Path) -> None:
    job = make_plan("transfer", request_of(digits, tmp_path / "s"), transfer_variants(["frozen"])).jobs[0]
    job.save()
    finetune(out=job.folder, steps=3, **job.call, report=False)
    log = (job.folder / "log.jsonl").read_bytes()
    assert execute(job)["steps"] == 3
    assert (job.folder / "log.jsonl").read_bytes() == log, "nothing was trained again"


@pytest.mark.slow
def test_a_stopped_study_resumes_to_the_same_metrics(digits: Path, tmp_path: Path) -> None:
    given = ["--variants", "finetuned", "scratch", "--steps", "8", "--seeds", "0", "--cfg-options", *OPTIONS]
    options = [*given, "training.checkpoint_every=0.125"]
    assert main(command(digits, tmp_path / "whole", *options)) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "tldet.cli", *command(digits, tmp_path / "cut", *options)], stderr=subprocess.PIPE
    )
    while not any((tmp_path / "cut").rglob("step_*.pt")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 130
    assert "runs are finished, the same command resumes the rest" in message
    assert not (tmp_path / "cut" / "results.json").exists()
    assert main(command(digits, tmp_path / "cut", *options)) == 0
    whole, cut = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "cut"))
    assert [run["numbers"] for run in whole["runs"]] == [run["numbers"] for run in cut["runs"]]


@pytest.mark.slow
def test_runs_in_processes_of_their_own(digits: Path, tmp_path: Path) -> None:
    plan = make_plan("transfer", request_of(digits, tmp_path / "s"), transfer_variants(["scratch", "frozen"]))
    results = run_parallel(JobQueue(plan.jobs), lambda job, slot: Worker(job, str(slot)), 2)
    assert [result["variant"] for result in results] == ["scratch", "frozen"]
    here = make_plan("transfer", request_of(digits, tmp_path / "h"), transfer_variants(["frozen"])).jobs[0]
    assert execute(here)["numbers"] == results[1]["numbers"]
    assert all("step 3/3" in path.read_text() for path in (tmp_path / "s").rglob("worker.log"))


@pytest.mark.slow
def test_a_failure_of_a_process_is_one_line(digits: Path, tmp_path: Path) -> None:
    broken = request_of(digits, tmp_path / "s", cfg_options=[*OPTIONS, "optimizer.lrr=1"])
    plan = make_plan("transfer", broken, transfer_variants(["scratch"]))
    with pytest.raises(ConfigError, match=r"run scratch, fraction 1, seed 0: optimizer.lrr: unknown key"):
        run_parallel(JobQueue(plan.jobs), lambda job, slot: Worker(job, "0"), 1)
