"""The commands that follow a run can be pasted into a terminal."""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
from pathlib import Path

from rich.console import Console

from tldet import checkpoint
from tldet.cli.main import build_parser, main
from tldet.cli.next_commands import command, show_next


def lines(folder: Path) -> list[str]:
    console = Console(file=io.StringIO(), width=40, soft_wrap=True)
    show_next(folder / "best.pt", console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_next_commands_work(run: Path, digits: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "a run")
    head, test, predict = lines(folder)
    assert head == "next:"
    for line in (test, predict):
        name, *arguments = shlex.split(line)
        assert name == "tldet"
        assert main(arguments) == 0
    parsed = build_parser().parse_args(shlex.split(predict)[1:])
    assert parsed.inputs == [str(digits / "test")]
    assert len(list((folder / "predictions").iterdir())) == 6


def test_words_with_spaces_are_quoted() -> None:
    assert shlex.split(command("test", "a b.pt")) == ["tldet", "test", "a b.pt"]


def test_images_are_in_the_folder_that_is_named(run: Path, digits: Path, tmp_path: Path) -> None:
    """The annotations of an extended detector refer to images in other folders."""
    folder = shutil.copytree(run, tmp_path / "run")
    coco = json.loads((digits / "valid" / "_annotations.coco.json").read_text())
    for image in coco["images"]:
        image["file_name"] = os.path.relpath(digits / "valid" / image["file_name"], folder)
    (folder / "val.json").write_text(json.dumps(coco))
    state = checkpoint.load_checkpoint(folder / "best.pt")
    state["config"]["data"] = {"val": {"annotations": str(folder / "val.json"), "images": str(folder)}}
    checkpoint.save(folder / "best.pt", state)
    assert shlex.split(lines(folder)[-1])[:4] == ["tldet", "predict", str(folder / "best.pt"), str(digits / "valid")]
