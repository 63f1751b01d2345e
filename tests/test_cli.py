"""The command line: answers at once, and every tool is the command of the same name."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tldet.cli import COMMANDS, build_parser, main
from tldet.commands.shared import options_of

ROOT = Path(__file__).resolve().parents[1]


def test_help_answers_at_once() -> None:
    """Half a second is the promise; other work on the machine may take its part of one attempt."""
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "tldet.cli", "--help"], capture_output=True, text=True, check=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
    assert all(name in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from tldet.cli import build_parser; build_parser()"
    code += "; print('torch' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "finetune",
        "extend",
        "fewshot",
        "pretrain",
        "study",
        "test",
        "evaluate",
        "predict",
        "import",
        "merge",
        "models",
        "benchmark",
    ],
)
def test_each_tool_is_the_command(name: str) -> None:
    tool = subprocess.run(
        [sys.executable, str(ROOT / "tools" / f"{name}.py"), "--help"], capture_output=True, text=True, check=True
    )
    command = subprocess.run(
        [sys.executable, "-m", "tldet.cli", name, "--help"], capture_output=True, text=True, check=True
    )
    assert tool.stdout.split("options:")[1] == command.stdout.split("options:")[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "x.py", "--resume", "--init-from", "f"],
        ["finetune", "--data", "d", "--out", "o", "--epochs", "1", "--steps", "2"],
        ["finetune", "--data", "d", "--out", "o", "--minutes", "-1"],
        ["finetune", "--data", "d", "--out", "o", "--steps", "-1"],
        ["evaluate", "--gt", "a", "--dt", "b", "--engine", "other"],
        ["predict", "c.pt"],
        ["predict", "c.pt", "a.jpg", "--score", "nan"],
        ["predict", "c.pt", "a.jpg", "--score", "5"],
        ["predict", "c.pt", "a.jpg", "--score", "-0.1"],
        ["predict", "c.pt", "a.jpg", "--json", "."],
        ["test", "c.pt", "--json", "."],
        ["test", "c.pt", "--results", "."],
        ["evaluate", "--gt", "a", "--dt", "b", "--json", "."],
        ["models", "--json", "."],
        ["benchmark", "--json", "."],
    ],
)
def test_arguments_that_exclude_each_other_or_make_no_sense(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_compile_is_an_option_of_the_config() -> None:
    parse = build_parser().parse_args
    assert options_of(parse(["train", "some_config"])) == []
    given = parse(["finetune", "--out", "o", "--compile", "--cfg-options", "training.ema=0.9"])
    assert options_of(given) == ["training.compile=True", "training.ema=0.9"]
