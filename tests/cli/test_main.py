"""The command line: answers at once, and every tool is the command of the same name."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked
from tldet.cli.main import COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]


def test_help_answers_at_once() -> None:
    """Half a second is the promise, of CPU time: other work on the machine delays the clock."""
    seconds = []
    for _ in range(3):
        start = os.times()
        done = subprocess.run([sys.executable, "-m", "tldet.cli", "--help"], capture_output=True, text=True, check=True)
        end = os.times()
        seconds.append(end.children_user + end.children_system - start.children_user - start.children_system)
    assert min(seconds) < 0.5
    assert all(name in done.stdout for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from tldet.cli.main import build_parser; build_parser()"
    code += "; print('torch' in sys.modules, 'cv2' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


@pytest.mark.parametrize(
    "name",
    [
        "train",
        "finetune",
        "test",
        "evaluate",
        "predict",
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
        ["finetune", "--out", "o", "--weights", "w", "--init-from", "f"],
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
    ],
)
def test_arguments_that_exclude_each_other_or_make_no_sense(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_a_command_names_the_missing_input(tmp_path: Path) -> None:
    for how in (["tldet", "predict"], [ROOT / "tools" / "predict.py"]):
        done = forked.run([*how, "no such.pt", "x.jpg", "--out", tmp_path / "out"])
        assert done.returncode == 2
        assert done.stderr.strip() == "tldet predict: error: x.jpg: no such image, folder, video or camera"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_outside_the_terminal_s_encoding_are_escaped(tmp_path: Path, encoding: str) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": 50, "height": 50}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    whole = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "猫 café"}]}
    (tmp_path / "gt.json").write_text(json.dumps(whole))
    (tmp_path / "dt.json").write_text("[]")
    for dt, code in ((tmp_path / "dt.json", 0), (os.fsencode(tmp_path) + b"/\xff.json", 2)):
        done = subprocess.run(
            [sys.executable, "-m", "tldet.cli", "evaluate", "--gt", tmp_path / "gt.json", "--dt", dt],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
            check=False,
        )
        assert done.returncode == code
        assert b"Traceback" not in done.stderr
        assert (rb"\udcff.json: no such file" in done.stderr) == (code == 2)


@pytest.mark.skipif(os.name != "posix", reason="a folder in use cannot be removed")
@pytest.mark.parametrize("command", ["evaluate --gt a --dt b", "models", "merge a b --out c", "predict c.pt a.jpg"])
def test_the_current_folder_was_removed(tmp_path: Path, command: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    code = f"import os; os.rmdir({str(gone)!r}); from tldet.cli.main import entry; entry({command.split()!r})"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    given = [sys.executable, "-c", code]
    done = subprocess.run(given, cwd=gone, env=environment, capture_output=True, text=True, check=False)
    name = command.split()[0]
    text = f"tldet {name}: error: the current folder has been removed; change to another one"
    assert (done.returncode, done.stderr.splitlines()) == (2, [text])


def test_long_names_are_shortened_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*_: object) -> None:
        logging.getLogger("tldet.data").warning("no object of class %s", "c" * 100_000)

    monkeypatch.setattr("tldet.cli.models.run", run)
    assert main(["models"]) == 0
    err = capsys.readouterr().err
    assert err.startswith("no object of class ccc")
    assert "[100000 characters]" in err
    assert len(err) < 500


def test_line_breaks_of_names_are_escaped_in_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tldet.cli.models.run", lambda *_: logging.getLogger("tldet.data").warning("class %s", "a\nb"))
    assert main(["models"]) == 0
    assert capsys.readouterr().err == "class a\\nb\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["predict", "c.pt", ""], "inputs"),
        (["predict", "c.pt", "a.jpg", ""], "inputs"),
        (["predict", "", "a.jpg"], "checkpoint"),
        (["predict", "c.pt", "a.jpg", "--out", ""], "out"),
        (["predict", "c.pt", "a.jpg", "--csv", ""], "csv"),
        (["test", "", "--data", "x"], "checkpoint"),
        (["test", "c.pt", "--data", ""], "data"),
        (["finetune", "--data", "", "--out", "o"], "data"),
        (["finetune", "--data", "d", "--out", ""], "out"),
        (["evaluate", "--gt", "", "--dt", "b"], "gt"),
        (["merge", "", "--out", "o"], "inputs"),
    ],
)
def test_an_empty_argument_is_not_the_current_folder(
    arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert f"error: argument {named} is empty" in capsys.readouterr().err


@pytest.mark.parametrize("columns", ["0", "1", "5", "abc", "-3"])
def test_the_width_of_the_terminal_hides_nothing(
    columns: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = {"id": 1, "file_name": "a.jpg", "width": 50, "height": 50}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
    whole = {"images": [image], "annotations": [box], "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "gt.json").write_text(json.dumps(whole))
    (tmp_path / "dt.json").write_text(json.dumps([{**box, "score": 0.5}]))
    monkeypatch.setenv("COLUMNS", columns)
    assert main(["evaluate", "--gt", str(tmp_path / "gt.json"), "--dt", str(tmp_path / "dt.json")]) == 0
    reported = capsys.readouterr().out
    assert "AP50" in reported
    assert "1.000" in reported
    assert main(["predict", str(tmp_path / "none.pt"), str(tmp_path / "none.jpg")]) == 2
    assert f"{tmp_path / 'none.jpg'}: no such image" in capsys.readouterr().err
