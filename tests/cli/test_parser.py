"""Unknown options and commands: one line with a suggestion, and no abbreviations."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import pytest

from tldet.cli.main import build_parser, main
from tldet.cli.parser import Parser
from tldet.cli.suggestions import SYNONYMS, config_keys


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1, "one line"
    return err


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from parsers(one)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["finetune", "--out", "o", "--bach-size", "4"], "unknown option --bach-size; did you mean --batch-size?"),
        (["finetune", "--output", "o"], "unknown option --output; did you mean --out?"),
        (["finetune", "--data", "d", "--work-dir=o"], "unknown option --work-dir; did you mean --out?"),
        (["train", "c", "--out", "o"], "unknown option --out; did you mean --work-dir?"),
        (["finetune", "--out", "o", "--batch_size", "4"], "did you mean --batch-size?"),
        (["finetune", "--out", "o", "--Learning-Rate", "1"], "did you mean --lr?"),
        (["extend", "c", "--out", "o", "--num-workers", "1"], "did you mean --workers?"),
        (["predict", "c", "a", "--conf", "0.5"], "did you mean --score?"),
        (["test", "c", "--dataset", "d"], "did you mean --data?"),
        (["finetune", "--out", "o", "--eval-batch-size", "2"], "--cfg-options data.loader.eval_batch_size=2 "),
        (["pretrain", "--out", "o", "--weight-decay=0.1"], "--cfg-options optimizer.weight_decay=0.1 "),
        (["study", "data", "--out", "o", "--clip-norm"], "--cfg-options training.clip_norm=VALUE "),
        (["train", "c", "--acumulate", "2"], "--cfg-options training.accumulate=2 "),
        (["study", "data", "--out", "o", "--resume"], "--resume: not needed, the same command resumes the study"),
        (["fewshot", "--out", "o", "--resume"], "--resume: not needed"),
        (["evaluate", "--gt", "a", "--dt", "b", "--xyzzy"], "unknown option --xyzzy (see tldet evaluate --help)"),
        (["merge", "a", "-o", "b"], "unknown option -o"),
        (["finetune", "d", "--out", "o"], "unexpected argument d"),
        (["finetun", "--out", "o"], "no command 'finetun'; did you mean 'finetune'?"),
        (["study", "dta", "--out", "o"], "tldet study: error: no command 'dta'; did you mean 'data'?"),
        (["--verison"], "did you mean --version?"),
        (["finetune", "--out", "o", "--precision", "fp8"], "argument --precision: invalid choice: 'fp8'"),
        (["finetune", "--out", "o", "--batch-size", "0"], "must be 'auto' or an integer of at least 1, not '0'"),
        (["finetune", "--out", "o", "--batch-size", "four"], "must be 'auto' or an integer of at least 1, not 'four'"),
        (["finetune", "--out", "o", "--lr", "nan"], "argument --lr: must be a number above 0, not 'nan'"),
        (["train", "c", "--workers", "-1"], "argument --workers: must be an integer of at least 0, not '-1'"),
    ],
)
def test_the_error_suggests_the_nearest_option(
    arguments: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refused(arguments, capsys)


def test_no_command_takes_abbreviations(capsys: pytest.CaptureFixture[str]) -> None:
    found = list(parsers(build_parser()))
    assert len(found) > 15
    assert all(isinstance(one, Parser) and not one.allow_abbrev for one in found)
    assert "unknown option --ou; did you mean --out?" in refused(["finetune", "--ou", "o"], capsys)
    assert "unknown option --res" in refused(["train", "c", "--res"], capsys)


def test_values_that_look_like_options_are_values() -> None:
    given = build_parser().parse_args(["finetune", "--out", "o", "--seed", "-1", "--data", "-a b", "--minutes=3"])
    assert (given.seed, given.data, given.minutes) == (-1, "-a b", 3.0)
    assert build_parser().parse_args(["merge", "--out", "o", "--", "--odd", "b"]).inputs == ["--odd", "b"]


def test_names_of_other_toolkits_are_listed_once_and_belong_to_an_option() -> None:
    names = [name for group in SYNONYMS for name in group]
    assert len(names) == len(set(names))
    options = {option.lstrip("-") for one in parsers(build_parser()) for option in one._option_string_actions}
    assert all(options.intersection(group) for group in SYNONYMS)


def test_config_keys_are_those_of_the_sections() -> None:
    keys = config_keys()
    assert {"optimizer.weight_decay", "training.clip_norm", "schedule.warmup_steps", "freeze.gradual"} <= set(keys)
    assert "model.head.num_classes" in keys
    assert not any("*" in key for key in keys)
