"""The commands that follow a run can be pasted into a terminal."""

from __future__ import annotations

import io
import shlex
import shutil
from pathlib import Path

from rich.console import Console

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
