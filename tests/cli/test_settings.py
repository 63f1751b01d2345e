"""Options that set keys of the config, and the same key given twice."""

from __future__ import annotations

import pytest

from tldet.cli.arguments import arguments_of
from tldet.cli.main import build_parser, main
from tldet.config import parse_options
from tldet.workflows.extend.request import ExtendRequest
from tldet.workflows.fewshot.request import FewShotRequest
from tldet.workflows.requests import Request
from tldet.workflows.requests import options as options_of
from tldet.workflows.study.request import DataStudyRequest, TransferStudyRequest
from tldet.workflows.training.request import FinetuneRequest, PretrainRequest, TrainRequest
from tldet.workflows.training.run_options import SettingsOptions

TRAINING: dict[str, tuple[type[Request], list[str]]] = {  # commands that train, with their required arguments
    "train": (TrainRequest, ["c"]),
    "finetune": (FinetuneRequest, ["--out", "o"]),
    "pretrain": (PretrainRequest, ["--out", "o"]),
    "extend": (ExtendRequest, ["--out", "o"]),
    "fewshot": (FewShotRequest, ["--out", "o", "--novel", "a"]),
    "study transfer": (TransferStudyRequest, ["--out", "o"]),
    "study data": (DataStudyRequest, ["--out", "o"]),
}


def options(command: str, *more: str) -> list[str]:
    request, needed = TRAINING[command]
    args = build_parser().parse_args([*command.split(), *needed, *more])
    return request(**arguments_of(args, request, None)).overrides()


@pytest.mark.parametrize("command", list(TRAINING))
def test_settings_become_options_of_the_config(command: str) -> None:
    assert options(command) == []
    given = ["--batch-size", "8", "--lr", "1e-5", "--device", "0", "--workers", "0", "--precision", "fp32"]
    assert parse_options(options(command, *given)) == {
        "data.loader.batch_size": 8,
        "optimizer.lr": 1e-5,
        "optimizer.base_batch": None,
        "training.device": "0",
        "data.loader.workers": 0,
        "training.precision": "fp32",
    }
    assert parse_options(options(command, "--batch-size", "auto")) == {"data.loader.batch_size": "auto"}


def test_options_are_added_up() -> None:
    given = [
        "--cfg-options",
        "training.ema=0.9",
        "--compile",
        "--cfg-options",
        "training.max_keep_ckpts=3",
        "optimizer.lr=1",
    ]
    assert options("finetune", *given) == [
        "training.compile=True",
        "training.ema=0.9",
        "training.max_keep_ckpts=3",
        "optimizer.lr=1",
    ]
    freeze = build_parser().parse_args(["finetune", "--out", "o", "--freeze", "neck", "--freeze", "head.a", "head.b"])
    assert freeze.freeze == ["neck", "head.a", "head.b"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--batch-size", "8", "--cfg-options", "data.loader.batch_size=8"],
            "--batch-size and --cfg-options data",
        ),
        (["--batch-size", "8", "--cfg-options", "data.loader=dict(workers=1)"], "both set data.loader.batch_size"),
        (["--workers", "0", "--cfg-options", "data.loader.workers=2"], "both set data.loader.workers"),
        (["--lr", "1", "--cfg-options", "optimizer.base_batch=16"], "--lr and --cfg-options optimizer.base_batch both"),
        (["--compile", "--cfg-options", "training.compile=False"], "--compile and --cfg-options training.compile both"),
        (["--steps", "3", "--cfg-options", "schedule.steps=4"], "--steps and --cfg-options schedule.steps both set"),
        (["--seed", "0", "--cfg-options", "training.seed=4"], "--seed and --cfg-options training.seed both set"),
        (["--freeze", "neck", "--cfg-options", "freeze.layers=[]"], "--freeze and --cfg-options freeze.layers both"),
        (["--on-bad-image", "skip", "--cfg-options", "data.val.on_bad_image=error"], "both set data.val.on_bad_image"),
        (["--cfg-options", "a.b=1", "a.b=2"], "--cfg-options a.b: is given twice"),
        (["--cfg-options", "a.b=1", "--cfg-options", "a.b=1"], "--cfg-options a.b: is given twice"),
        (["--cfg-options", "a.b=1", "a=dict(c=2)"], "--cfg-options a: would replace a.b; set the keys of a one by one"),
        (["--cfg-options", "nonsense"], "must have the form a.b=value"),
    ],
)
def test_a_key_is_set_once(arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["finetune", "--data", "nowhere", "--out", "o", *arguments]) == 2
    err = capsys.readouterr().err
    assert expected in err
    assert err.count("\n") == 1


def test_neighboring_keys_do_not_clash() -> None:
    given = ["--lr", "1", "--batch-size", "2", "--cfg-options", "optimizer.lr_mult=1", "data.loader.workers=1"]
    assert options("train", *given)[-2:] == ["optimizer.lr_mult=1", "data.loader.workers=1"]
    assert options("train", "--cfg-options", "a=dict(c=2)", "a.b=1") == ["a=dict(c=2)", "a.b=1"], "adds to the section"


def test_every_setting_is_a_key_of_the_config() -> None:
    from tldet.cli.suggestions import config_keys

    settings = {one.sets[0] for one in options_of(SettingsOptions).values() if one.setting}
    assert settings
    assert settings <= set(config_keys())
