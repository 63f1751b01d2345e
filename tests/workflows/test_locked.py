"""Two commands never write to one output folder at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tldet.errors import DownloadError, OutputError, TldetError
from tldet.workflows.convert import convert
from tldet.workflows.extend.extend import extend
from tldet.workflows.fewshot.fewshot import fewshot
from tldet.workflows.get_data.get import get_data
from tldet.workflows.merge.merge import merge
from tldet.workflows.split.split import split
from tldet.workflows.study.api import study
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.pretrain import pretrain
from tldet.workflows.training.train import train

ROOT = Path(__file__).resolve().parents[2]
HOLD = (
    "import sys; from tldet.system.locks import locked"
    "\nwith locked(sys.argv[1]): print('held', flush=True); sys.stdin.read()"
)
SOURCE = """
license: none
files:
  - url: http://127.0.0.1:9/closed.zip
annotations: a.json
"""


def downloaded(data: Path, out: Path) -> Any:
    """Get a dataset from a port that is closed."""
    source = data.parent / f"{data.name}.yaml"
    source.write_text(SOURCE)
    return get_data(str(source), out=out)


def training_json(data: Path) -> Path:
    """The training annotations of a folder."""
    return next((data / "train").glob("*.json"))


COMMANDS: dict[str, Callable[[Path, Path], Any]] = {
    "finetune": lambda data, out: finetune(data, out=out),
    "finetune --resume": lambda data, out: finetune(out=out, resume=True),
    "train": lambda data, out: train("retinanet_lite0", work_dir=out),
    "train --resume": lambda data, out: train("retinanet_lite0", work_dir=out, resume=True),
    "pretrain": lambda data, out: pretrain(data, out=out),
    "pretrain --resume": lambda data, out: pretrain(out=out, resume=True),
    "extend": lambda data, out: extend(data / "none.pt", out=out),
    "extend --resume": lambda data, out: extend(out=out, resume=True),
    "study transfer": lambda data, out: study("transfer", data, out=out),
    "study backbones": lambda data, out: study("backbones", data, out=out, variants=["resnet18", "resnet34"]),
    "study data": lambda data, out: study("data", data, out=out),
    "fewshot": lambda data, out: fewshot(data, out=out, novel=["1"]),
    "merge": lambda data, out: merge([data / part / "_annotations.coco.json" for part in ("train", "valid")], out=out),
    "split": lambda data, out: split(training_json(data), out=out),
    "convert": lambda data, out: convert(data, to="yolo", out=out),
    "data get": downloaded,
}


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("held") / "out"
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield folder
    process.communicate("")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_command_is_refused_and_writes_no_file(digits: Path, held: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"out: is in use by another process; wait until it ends or choose another"):
        COMMANDS[name](digits, held)
    assert [path.name for path in held.iterdir()] == [".lock"]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_failed_start_leaves_no_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    (tmp_path / "data" / "train" / "a.json").write_text(json.dumps({"images": [], "annotations": 3}))
    with pytest.raises(TldetError):
        COMMANDS[name](tmp_path / "data", tmp_path / "runs" / "out")
    left = tmp_path / "runs" / "out"
    assert not left.exists() or {path.name for path in left.iterdir()} - {".lock"}


TEMPORARY = ".tldet-12345678.json.tmp"


def test_folders_with_temporary_files_of_a_killed_command_only(digits: Path, tmp_path: Path) -> None:
    for name in ("merge", "split", "convert"):
        out = tmp_path / name
        out.mkdir()
        (out / ".lock").touch()
        (out / TEMPORARY).write_bytes(b"half")
        COMMANDS[name](digits, out)
        assert not (out / TEMPORARY).exists()
        with pytest.raises(TldetError, match="contains an earlier"):
            COMMANDS[name](digits, out)
    with pytest.raises(DownloadError):
        COMMANDS["data get"](digits, tmp_path / "get")


def test_merging_into_a_folder_that_only_has_a_lock(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".lock").touch()
    merge(
        [digits / "train" / "_annotations.coco.json", digits / "valid" / "_annotations.coco.json"], out=tmp_path / "out"
    )
    assert (tmp_path / "out" / "train.json").exists()
