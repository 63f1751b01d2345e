"""Pipes, devices, loops of links and paths that are too long, as inputs of every command: one line, at once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tools import no_longer_than, with_slow
from tldet.cli.main import main

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
JSON = "{digits}/test/_annotations.coco.json"
COMMANDS = [
    "evaluate --gt {bad} --dt {json}",
    "evaluate --gt {json} --dt {bad}",
    "merge {bad} {json} --out {out}",
    "merge {digits}/train/_annotations.coco.json {json} --aliases {bad} --out {out}",
    "finetune --data {bad} --out {out}",
    "finetune --train {bad} --images {digits}/test --out {out}",
    "finetune --data {digits} --val {bad} --out {out}",
    "finetune --data {digits} --weights {bad} --out {out}",
    "finetune --data {digits} --init-from {bad} --out {out}",
    "finetune --data {digits} --init-from {run}/best.pt --class-aliases {bad} --out {out}",
    "train {bad} --work-dir {out}",
    "train retinanet/retinanet_r50_fpn_1x_coco --work-dir {out} --cfg-options data.train.annotations={bad}",
    "train {run}/config.py --work-dir {out} --init-from {bad}",
    "test {bad}",
    "test {run}/best.pt --data {bad}",
    "predict {bad} {digits}/test",
    "predict {run}/best.pt {digits}/test --annotations {bad} --json {out}.json",
    "extend {bad} --data {digits} --out {out}",
    "extend {run}/best.pt --train {bad} --images {digits}/test --out {out}",
    "extend {run}/best.pt --data {digits} --replay {bad} --out {out}",
    "import {bad} --out {out}",
    "pretrain --data {bad} --out {out}",
    "study data --data {bad} --out {out} --steps 1",
    "fewshot --data {bad} --novel 1 --out {out} --steps 1",
    "fewshot --data {digits} --novel 1 --shots 1 --base {bad} --out {out}",
]
MORE = [
    "check {bad} --json {out}.json --html {out}.html",
    "check {digits} --model {bad}",
    "convert {bad} --to coco --out {out}",
    "convert {digits} --to yolo --out {out} --classes {bad}",
    "split {bad} --out {out}",
    "report {bad} --out {out}.html",
    "report --gt {bad} --dt {json} --out {out}.html",
    "report --gt {json} --dt {bad} --out {out}.html",
    "compare {run}/best.pt {bad} --out {out}.html",
    "compare {bad} {json} --gt {json} --out {out}.html",
    "browse {bad} --html {out}.html",
    "browse {digits} --model {bad} --html {out}.html",
    "export {bad} --format onnx --out {out}",
    "export {run}/best.pt --format onnx --data {bad} --out {out}",
    "merge-results {bad} --json {out}.json",
    "serve {bad} --port 0",
    "import {run}/best.pt --classes {bad} --out {out}.pt",
]


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """Fail instead of waiting forever for a pipe."""
    with no_longer_than(20):
        yield


@pytest.fixture
def bad(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    return {"device": "/dev/zero", "long": str(tmp_path / ("x" * 5000))}.get(
        request.param, str(tmp_path / request.param)
    )


@pytest.mark.parametrize("bad", with_slow(["pipe", "device", "loop", "long", "folder"], ["folder"]), indirect=True)
@pytest.mark.parametrize("command", COMMANDS)
def test_one_line(
    command: str, bad: str, digits: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_refused(command, bad, digits, run, tmp_path / "out", capsys)


@pytest.mark.parametrize(
    "bad", with_slow(["pipe", "device", "loop", "long", "folder"], ["device", "loop", "long"]), indirect=True
)
@pytest.mark.parametrize("command", MORE)
def test_one_line_of_other_commands(
    command: str, bad: str, digits: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if command.startswith("import") and Path(bad).name != "pipe" and bad != "/dev/zero":
        pytest.skip("a class may have any name that is not that of a special file")
    assert_refused(command, bad, digits, run, tmp_path / "out", capsys)


def assert_refused(
    command: str, bad: str, digits: Path, run: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    locations = {"bad": bad, "digits": digits, "run": run, "out": out, "json": JSON.format(digits=digits)}
    code = main([word.format(**locations) for word in command.split()])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert code == 2, err
    assert len(lines) == 1, err
    assert err.rstrip().splitlines()[-1] == lines[0]
    assert len(lines[0]) < 2100
    assert bad[:60] in lines[0]
    assert [path.name for path in out.parent.rglob("out*") if path.is_file()] == []
