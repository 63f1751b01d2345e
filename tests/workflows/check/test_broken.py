"""Broken datasets: each gives the right finding and exit code, and no traceback."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.check.broken import CASES, Case, write
from tldet.cli.main import main
from tldet.data.checks.findings import CODES

SLOW_CODES = {"label-missing", "label-spurious", "label-class", "label-loose"}  # need a detector
OTHER_FORMATS = {"record-changed"}


def checked(folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of ``tldet check``, and its JSON."""
    out = folder.parent / "found.json"
    code = main(["check", str(folder), "--json", str(out), "--overwrite", *options])
    return code, json.loads(out.read_text()) if out.exists() else {}


def codes(report: dict[str, Any], *severities: str) -> set[str]:
    return {one["code"] for one in report["findings"] if not severities or one["severity"] in severities}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_finding_and_exit_code(case: Case, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    path = write(folder, case.change)
    if path.read_bytes() == b"remove":
        path.unlink()
    code, report = checked(folder)
    assert case.code in codes(report), codes(report)
    assert code == case.exit, codes(report)
    severity = CODES[case.code][0]
    assert (severity == "error") <= (code == 1)


def test_a_sound_dataset_has_no_finding_but_its_rare_classes(tmp_path: Path) -> None:
    write(tmp_path / "data")
    code, report = checked(tmp_path / "data")
    assert (code, codes(report)) == (0, {"class-rare"})
    assert checked(tmp_path / "data", "--fail-on", "info")[0] == 1
    assert checked(tmp_path / "data", "--fail-on", "warning")[0] == 0


def test_every_code_has_a_case() -> None:
    assert len(CASES) >= 80
    assert {case.code for case in CASES} == set(CODES) - SLOW_CODES - OTHER_FORMATS
    assert len({case.name for case in CASES} | {""}) > 80


def test_a_path_that_does_not_exist_is_bad_input(tmp_path: Path) -> None:
    assert main(["check", str(tmp_path / "none")]) == 2


def test_relative_paths_of_other_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.data.formats.made import make

    make(tmp_path / "source", "voc")
    monkeypatch.chdir(tmp_path)
    assert main(["check", "source", "--fail-on", "warning", "--html", "page.html"]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "<h1>Check of source</h1>" in page
    assert re.findall(r"<h\d>Splits</h\d>", page) == ["<h2>Splits</h2>"]
