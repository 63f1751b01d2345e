"""Metrics are printed before they are written, and files of a run are replaced as a whole."""

from __future__ import annotations

import errno
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
    assert main(["test", str(run / "best.pt"), option, str(path)]) == 2
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
        finetune(out=folder, resume=True, cfg_options=["schedule.steps=8"])
    assert (folder / "config.py").read_bytes() == before
    assert not list(folder.glob(".*.tmp"))
