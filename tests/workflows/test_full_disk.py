"""Commands that write to a full disk and to a read-only folder: one line, and earlier files stay.

The disk is a small tmpfs, which needs the right to mount; without it, only the read-only folder is tested.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torchvision

from tldet import checkpoint
from tldet.cli.main import main
from tldet.data.digits import generate_crops

FULL = "(No space left on device); free some disk space; earlier files are unchanged"
FAST = "--steps 1 --no-report --cfg-options data.loader.batch_size=2 training.precision=fp32"


def mount(path: Path, options: str) -> None:
    given = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    try:
        failed = subprocess.run(given, capture_output=True, check=False).returncode
    except OSError:
        failed = 1
    if failed:
        pytest.skip("needs the right to mount a tmpfs")


@pytest.fixture
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty file system with so many KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mount(path, f"size={request.param}k")
    yield path
    subprocess.run(["umount", "-l", str(path)], check=False)


@pytest.fixture(scope="module")
def sources(digits: Path, run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Inputs of the commands by name."""
    folder = tmp_path_factory.mktemp("sources")
    torch.manual_seed(0)
    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(model.state_dict(), folder / "retinanet.pth")
    text = (digits / "train" / "_annotations.coco.json").read_text(encoding="utf-8")
    (folder / "new.json").write_text(text.replace('"name": "', '"name": "new '), encoding="utf-8")
    (folder / "other.json").write_text(text, encoding="utf-8")
    crops = generate_crops(folder / "crops", train=60, val=20, side=32)
    return {"digits": digits, "run": run, "sources": folder, "crops": crops}


def ended(command: str, names: dict[str, object], capsys: pytest.CaptureFixture[str]) -> str:
    """The line with which a command ends that cannot write."""
    code = main([word.format(**names) for word in command.split()])
    err = capsys.readouterr().err
    assert code == 2, err
    assert "Traceback" not in err
    assert sum("error:" in line for line in err.splitlines()) == 1, err
    return err.rstrip().splitlines()[-1]


def temporary(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob(".tldet-*")]


DISKS = [
    pytest.param(8, "split {digits}/train/_annotations.coco.json --out {out}", id="split"),
    pytest.param(
        8, "merge {digits}/train/_annotations.coco.json {digits}/test/_annotations.coco.json --out {out}", id="merge"
    ),
    pytest.param(24, "convert {digits} --to yolo --out {out}", id="convert"),
]
SLOW = [
    (1000, "pretrain --data {crops} --out {out} " + FAST, "pretrain"),
    (1000, "extend {run}/best.pt --train {sources}/new.json --images {digits}/train --out {out} " + FAST, "extend"),
    (1000, "finetune --data {digits} --model retinanet_lite0 --out {out} " + FAST, "finetune"),
    (1000, "train {run}/config.py --no-report --work-dir {out} --cfg-options schedule.steps=1", "train"),
    (
        1000,
        "study transfer --data {digits} --out {out} --variants scratch --model retinanet_lite0 --seeds 0 --steps 1",
        "study",
    ),
]


@pytest.mark.parametrize(
    ("disk", "command"),
    [*DISKS, *(pytest.param(size, command, id=name, marks=pytest.mark.slow) for size, command, name in SLOW)],
    indirect=["disk"],
)
def test_a_full_disk(command: str, disk: Path, sources: dict[str, object], capsys: pytest.CaptureFixture[str]) -> None:
    earlier, names = disk / "earlier", {**sources, "out": disk / "out"}
    earlier.write_bytes(b"old")
    assert FULL in ended(command, names, capsys)
    assert earlier.read_bytes() == b"old"
    assert temporary(disk) == []
    for path in disk.rglob("*.pt"):
        checkpoint.load_checkpoint(path)


def test_merging_again_after_a_full_disk(
    digits: Path, tmp_path: Path, sources: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed merge leaves no folder that the next one refuses, unless a complete file is in it."""
    path = tmp_path / "disk"
    path.mkdir()
    mount(path, "size=4k")
    try:
        names = {**sources, "out": path / "out"}
        command = "merge {digits}/train/_annotations.coco.json {digits}/test/_annotations.coco.json --out {out}"
        assert FULL in ended(command, names, capsys)
        subprocess.run(["mount", "-o", "remount,size=10m", str(path)], check=True)
        assert main([word.format(**names) for word in command.split()]) == 0
        assert (path / "out" / "train.json").exists()
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


@pytest.mark.slow
@pytest.mark.parametrize("disk", [600], indirect=True)
@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("import {sources}/retinanet.pth --out {out}.pt", "out.pt"),
        ("export {run}/best.pt --format onnx --no-verify --out {folder}", "best.onnx"),
        ("export {run}/best.pt --format openvino --no-verify --out {folder}", "best.bin"),
        ("export {run}/best.pt --format torch --no-verify --out {folder}", "best.pt2"),
        ("report {run}/best.pt --out {out}.html", "out.html"),
    ],
)
def test_an_earlier_file_on_a_full_disk(
    command: str, name: str, disk: Path, sources: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    (disk / name).write_bytes(b"old")
    (disk / "filler").write_bytes(bytes(520_000))
    assert FULL in ended(command, {**sources, "out": disk / "out", "folder": disk}, capsys)
    assert (disk / name).read_bytes() == b"old"
    assert {path.name for path in disk.iterdir()} == {name, "filler"}


@pytest.fixture(scope="module")
def read_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a file, in which nobody can write: without write permission, and for root on such a file system."""
    path = tmp_path_factory.mktemp("read_only") / "folder"
    path.mkdir()
    if os.name != "posix":
        pytest.skip("permissions of POSIX")
    if os.geteuid():
        (path / "earlier.json").write_text("{}")
        path.chmod(0o555)
        yield path
        path.chmod(0o755)
        return
    mount(path, "size=100k")
    try:
        (path / "earlier.json").write_text("{}")
        subprocess.run(["mount", "-o", "remount,ro", str(path)], check=True)
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False)


@pytest.mark.parametrize(
    "command",
    [
        "finetune --data {digits} --out {out}",
        "train {run}/config.py --work-dir {out}",
        "pretrain --data {crops} --out {out}",
        "extend {run}/best.pt --train {sources}/new.json --images {digits}/train --out {out}",
        "study transfer --data {digits} --out {out} --steps 1",
        "fewshot --data {digits} --novel 1 --shots 1 --out {out} --steps 1",
        "merge {digits}/train/_annotations.coco.json {digits}/test/_annotations.coco.json --out {out}",
        "split {digits}/train/_annotations.coco.json --out {out}",
        "convert {digits} --to yolo --out {out}",
        "import {sources}/retinanet.pth --out {out}.pt",
        "export {run}/best.pt --format onnx --out {folder}",
        "test {run}/best.pt --json {out}.json",
        "test {run}/best.pt --json {folder}/earlier.json",
        "predict {run}/best.pt {digits}/test --out {out}",
        "predict {run}/best.pt {digits}/test --csv {out}.csv",
        "predict {run}/best.pt {digits}/test --jsonl {out}.jsonl",
        "report {run}/best.pt --out {out}.html",
        "compare {run}/best.pt {run}/best.pt --out {out}.html",
        "browse {digits} --html {out}.html",
        "check {digits} --json {out}.json",
        "check {digits} --html {out}.html",
        "evaluate --gt {sources}/other.json --dt {sources}/other.json --json {out}.json",
    ],
)
def test_a_read_only_folder(
    command: str, read_only: Path, sources: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    line = ended(command, {**sources, "out": read_only / "out", "folder": read_only}, capsys)
    assert str(read_only) in line
    assert "Read-only file system" in line or "Permission denied" in line
    assert {path.name: path.read_text() for path in read_only.iterdir()} == {"earlier.json": "{}"}
