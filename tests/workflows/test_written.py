"""Metrics are printed before they are written, and files of a run are replaced as a whole."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tldet.cli.main import main
from tldet.errors import OutputError
from tldet.system import output
from tldet.workflows.training.finetune import finetune


@pytest.mark.parametrize("option", ["--json", "--results"])
def test_metrics_are_printed_before_they_are_written(
    run: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.json"
    path.write_text("old")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output, "_replace", full)
    assert main(["test", str(run / "best.pt"), option, str(path), "--overwrite"]) == 2
    out, err = capsys.readouterr()
    assert "COCO bbox" in out
    assert err.splitlines()[-1].startswith(f"tldet test: error: {path}: cannot be written (No space left on device)")
    assert path.read_text() == "old"


def test_a_path_that_cannot_be_written_is_found_before_the_work(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in (["test", str(run / "best.pt"), "--json"], ["evaluate", "--gt", "none", "--dt", "none", "--json"]):
        assert main([*command, str(tmp_path / ("a" * 300))]) == 2
        out, err = capsys.readouterr()
        assert (out, len(err.splitlines())) == ("", 1)
        assert "cannot be written (File name too long)" in err


def test_a_config_that_cannot_be_written_stays(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = (folder / "config.py").read_bytes()

    replace = output._replace

    def full(new: Path, target: Path) -> None:
        if target.name == "config.py":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(new, target)

    monkeypatch.setattr(output, "_replace", full)
    with pytest.raises(OutputError, match=r"config\.py: cannot be written"):
        finetune(out=folder, resume=True, cfg_options=["schedule.steps=8"], report=False)
    assert (folder / "config.py").read_bytes() == before
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize(
    "command",
    [
        "evaluate --gt {in}/gt.json --dt {in}/dt.json --json {in}/gt.json",
        "evaluate --gt {in}/gt.json --dt {in}/dt.json --json {in}/link",
        "test {in}/best.pt --data {in}/gt.json --json {in}/best.pt",
        "test {in}/best.pt --data {in}/gt.json --results {in}/x/../gt.json",
        "test {in}/best.pt --data {data} --json {data}/test/_annotations.coco.json",
        "import {in}/best.pt --out {in}/best.pt",
        "import {in}/best.pt --out {in}/new.pt --classes {in}/new.pt",
    ],
)
def test_an_output_never_replaces_an_input(
    command: str, run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(digits, tmp_path / "data")
    shutil.copy(run / "best.pt", tmp_path / "best.pt")
    shutil.copy(digits / "test" / "_annotations.coco.json", tmp_path / "gt.json")
    (tmp_path / "dt.json").write_text("[]")
    (tmp_path / "new.pt").write_text("1")
    (tmp_path / "link").symlink_to("dt.json")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    words = [word.format(**{"in": tmp_path, "data": tmp_path / "data"}) for word in command.split()]
    assert main([*words, "--overwrite"]) == 2
    assert "is an input and would be overwritten; choose another output path" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_two_outputs_are_two_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["test", str(run / "best.pt"), "--json", str(tmp_path / "a"), "--results", f"{tmp_path}/./a"]
    assert main(given) == 2
    assert "a: is given for two outputs; choose different paths" in capsys.readouterr().err


def test_models_finds_a_bad_output_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("tldet.workflows.models.detector_row", lambda _: pytest.fail("the work has started"))
    assert main(["models", "--detectors", "--json", os.fspath(tmp_path / "file" / "x.json")]) == 2
    assert "cannot be written (Not a directory)" in capsys.readouterr().err
