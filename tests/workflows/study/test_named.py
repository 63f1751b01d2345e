"""Variants with any settings: their form, and everything that is wrong is an error before the first run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tldet.cli.main import main
from tldet.config import option_value, parse_options
from tldet.errors import ConfigError, TldetError
from tldet.workflows.study.api import study
from tldet.workflows.study.named import check_jobs, named_variants
from tldet.workflows.study.plan import make_plan
from tldet.workflows.study.request import VariantStudyRequest

MODEL = "retinanet_lite0"


def test_settings_of_every_kind() -> None:
    found = named_variants(
        [
            "plain",
            "low=lr=0.001,batch-size=8",
            "big=model=fcos_lite0,input-size=320x416,augment=strong",
            "own=augment=['HorizontalFlip', 'ColorJitter(p=0.3,hue=0.1)'],optimizer.weight_decay=0.1",
            "frozen=freeze=backbone",
            "ends=freeze=[backbone,neck.*]",
            'new=scratch=true,training.loss="a,b"',
        ],
        MODEL,
    )
    assert list(found) == ["plain", "low", "big", "own", "frozen", "ends", "new"]
    assert (found["plain"].call, found["plain"].options) == ({}, [])
    low = parse_options(found["low"].options)
    assert low == {"optimizer.lr": 0.001, "optimizer.base_batch": None, "data.loader.batch_size": 8}
    assert found["big"].call == {"model": "fcos_lite0", "input_size": "320x416", "augment": ["strong"]}
    assert found["own"].call == {"augment": ["HorizontalFlip", "ColorJitter(p=0.3,hue=0.1)"]}
    assert parse_options(found["own"].options) == {"optimizer.weight_decay": 0.1}
    assert found["low"].controls == ["optimizer.lr", "optimizer.base_batch", "data.loader.batch_size"]
    assert found["own"].controls == ["data.train.transforms"]
    assert found["frozen"].call == {"freeze": ["backbone"]}
    assert found["ends"].call == {"freeze": ["backbone", "neck.*"]}
    assert found["new"].call == {"scratch": True}
    assert "model.weights" in found["new"].controls


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", "b=lrr=1"], "nor a config key like optimizer.lr; did you mean 'lr'?"),
        (["a", "b=lr"], "variant b: lr has no value; the form is NAME=KEY=VALUE"),
        (["a", "b=lr=-1"], "variant b: lr must be a number above 0, not -1"),
        (["a", "b=lr=high"], "variant b: lr must be a number above 0, not high"),
        (["a", "b=precision=fp8"], "variant b: precision must be one of auto, fp32, bf16, fp16"),
        (["a", "b=scratch=yes"], "variant b: scratch must be one of true, false, not yes"),
        (["a", "b=lr=1,lr=2"], "variant b: lr is given twice"),
        (["a", "a=lr=1"], "a is given twice"),
        (["a=lr=1", "b=lr=1"], "has the same settings as variant 'a'"),
        (["a/b=lr=1", "c"], "must have the form NAME=KEY=VALUE"),
        (["a"], "specify two or more variants"),
        (["a", "b=patience=3"], "variant b: patience: neither an option of tldet finetune"),
        (["a", "b=epochs=3"], "variant b: epochs: neither an option of tldet finetune"),
        (["a", "b=schedule.steps=3"], "variant b: schedule.steps: the experiment sets this key for each run"),
        (["a", "b=model=mask_rcnn_lite0"], "variants a and b: box AP and mask AP cannot be compared"),
        (["a", "b=model=retinanet_lite"], "retinanet_lite"),
    ],
)
def test_wrong_variants(texts: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        named_variants(texts, MODEL)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def plan_of(digits: Path, out: Path, *texts: str, **more: Any) -> Any:
    request = VariantStudyRequest(digits, out=out, variants=texts, model=MODEL, steps=4, seeds=[0, 1], **more)
    return make_plan("variants", request, named_variants(texts, MODEL))


def test_a_plan(digits: Path, tmp_path: Path) -> None:
    plan = plan_of(digits, tmp_path / "s", "base", "more=batch-size=8", "aug=augment=light,input-size=64x96")
    check_jobs(plan.jobs)
    assert [job.name for job in plan.jobs[:4]] == [
        "base, fraction 1, seed 0",
        "more, fraction 1, seed 0",
        "aug, fraction 1, seed 0",
        "base, fraction 1, seed 1",
    ]
    sizes = [option_value(parse_options(j.call["cfg_options"]), "data.loader.batch_size") for j in plan.jobs[:3]]
    assert sizes == [4, 8, 4]
    assert {job.length["steps"] for job in plan.jobs} == {4}
    assert not (tmp_path / "s" / "runs").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x=input-size=9", "variant x: --input-size 9: must be SHORT"),
        ("x=augment=[light,strong]", "variant x: --augment light strong"),
        ("x=model.head.bins=3", "model.head.bins"),
        ("x=backbone=resnet_18", "variant x: backbone 'resnet_18'"),
        ("x=weights=nowhere.pt,scratch=true", "variant x: "),
        ("x=augment=HorizontalFlp", "HorizontalFlp"),
    ],
)
def test_wrong_settings_are_found_before_the_first_run(text: str, message: str, digits: Path, tmp_path: Path) -> None:
    with pytest.raises(TldetError) as raised:
        check_jobs(plan_of(digits, tmp_path / "s", "base", text).jobs)
    assert message in str(raised.value)
    assert str(raised.value).startswith("variant x: ")


def test_an_option_for_all_does_not_undo_a_variant(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer.lr: variant 'low' sets this key"):
        plan_of(digits, tmp_path / "s", "base", "low=lr=0.001", cfg_options=["optimizer.lr=0.1"])


def test_errors_are_one_line(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shared = ["--data", str(digits), "--out", str(tmp_path / "s"), "--model", MODEL, "--steps", "2"]
    assert main(["study", "variants", "base", "low=lr=abc", *shared]) == 2
    assert "tldet study: error: variant low: lr must be a number above 0" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["study", "augment", "--variants", "light", "heavy", *shared])
    assert "heavy" in capsys.readouterr().err


@pytest.mark.slow
def test_a_study_of_presets(digits: Path, tmp_path: Path) -> None:
    options = ["training.precision=fp32", "model.head.settings.score_thr=0.001"]
    report = study("augment", digits, out=tmp_path / "s", model=MODEL, steps=3, seeds=[0, 1], cfg_options=options)
    assert [group.variant for group in report.groups] == ["none", "light", "standard", "strong"]
    assert [one.reference for one in report.compared] == ["none"] * 3
    assert [run["steps"] for run in report.runs] == [3] * 8
    weights = {run["checkpoint"] for run in report.runs}
    assert len(weights) == 8
