"""Output files: the old one or the new one at any moment, with the permissions of a new file, and one line if not."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from tldet import checkpoint
from tldet.config import Config
from tldet.data.layouts import Split
from tldet.data.merge.classes import merge_classes
from tldet.data.merge.files import copy_image
from tldet.data.merge.join import join
from tldet.data.merge.source import open_merge_source
from tldet.data.merge.writing import write_joined
from tldet.engine.distributed import World
from tldet.engine.logging import JsonLog
from tldet.errors import DataError, OutputError
from tldet.evaluation.report import CocoResult
from tldet.system import output
from tldet.system.output import Replacement, replacing, write_bytes, write_json
from tldet.system.output_checks import check_output
from tldet.visualize.curves import plot_variants
from tldet.workflows.predict.outputs import write_image
from tldet.workflows.report.report import Report
from tldet.workflows.report.write import write_report_page
from tldet.workflows.training.run_folder import RunFiles

ROOT = Path(__file__).resolve().parents[2]
IMAGE = np.zeros((8, 8, 3), np.uint8)
STATE = {"model": {"w": torch.arange(6.0)}}


def copied(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    source = path.with_name("source")
    source.write_bytes(b"new")
    copy_image(source, path)


def merged(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    source = path.with_name("source")
    image, category = {"id": 1, "file_name": "a.jpg", "width": 8, "height": 8}, {"id": 1, "name": "a"}
    source.write_text(json.dumps({"images": [image], "annotations": [], "categories": [category]}))
    sources = [open_merge_source(Split(source, path.parent), missing=True)]
    classes = merge_classes([one.categories for one in sources], {})
    write_joined(path, join(sources, classes.tables, np.zeros(1, np.int64)), classes, ["a.jpg"])


WRITERS: dict[str, Callable[[Path], Any]] = {
    "out.json": lambda path: write_json(path, {"a": 1}),
    "out.pt": lambda path: checkpoint.save(path, STATE),
    "out.safetensors": lambda path: checkpoint.save_weights(path, STATE["model"], {"a": "b"}),
    "config.py": lambda path: RunFiles(path.parent, Config({"a": 1}).dump(), "# {path}\n").before_train(
        cast("Any", SimpleNamespace(world=World()))
    ),
    "metrics.json": lambda path: CocoResult().save(path),
    "out.png": lambda path: write_image(path, IMAGE),
    "plot.png": lambda path: plot_variants({"a": (1, 1, 1)}, path, title=""),
    "copy.jpg": copied,
    "train.json": merged,
    "report.html": lambda path: write_report_page(Report("a", "b", {}, []), path),
    "log.jsonl": lambda path: JsonLog(path).cut(0),
}


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("name", WRITERS)
def test_new_files_respect_the_umask(tmp_path: Path, name: str, umask: Callable[[int], int]) -> None:
    for mask in (0o022, 0o002, 0o077):
        umask(mask)
        folder = tmp_path / f"{mask:o}"
        WRITERS[name](folder / name)
        assert mode_of(folder / name) == 0o666 & ~mask


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_replaced_file_keeps_its_permissions(tmp_path: Path, umask: Callable[[int], int]) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}")
    path.chmod(0o640)
    write_json(path, [1])
    assert (mode_of(path), path.read_text()) == (0o640, "[1]\n")


@pytest.mark.parametrize("name", WRITERS)
def test_a_failed_write_leaves_the_earlier_file_only(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / name
    path.parent.mkdir()
    path.write_bytes(b"old")

    def full(*_: Any) -> None:
        assert path.read_bytes() == b"old", "not touched while the new one is written"
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(output, "_replace", full)
    if name == "log.jsonl":
        path.write_bytes(b"")
        monkeypatch.setattr(Path, "read_bytes", lambda _: b"old")
    with pytest.raises(DataError) as raised:  # an OutputError is one
        WRITERS[name](path)
    assert "\n" not in str(raised.value)
    assert "No space left on device" in str(raised.value)
    assert {one.name for one in path.parent.iterdir()} - {"source"} == {name}


def test_an_error_in_the_middle_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), replacing(path) as file:  # noqa: PT012
        file.write(b"ne")
        raise KeyError
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_a_kill_in_the_middle_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "config.py"
    path.write_text("old")
    script = (
        "import os, sys\nfrom tldet.system.output import replacing\n"
        "with replacing(sys.argv[1]) as file:\n    file.write(b'ne')\n    file.flush()\n    os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -9
    assert path.read_text() == "old"
    (left,) = set(tmp_path.iterdir()) - {path}
    assert left.name.startswith(".tldet-")
    output.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_links_are_followed(tmp_path: Path) -> None:
    real, link = tmp_path / "real" / "a.json", tmp_path / "a.json"
    link.symlink_to(real)
    write_json(link, 1)
    write_json(link, 2)
    assert link.is_symlink()
    assert real.read_text() == "2\n"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OutputError, match="loop: cannot be written"):
        write_json(tmp_path / "loop", 1)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices")
def test_pipes_and_devices_are_written_directly(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    write_json(pipe, {"a": 1})
    reader.join(10)
    assert found == ['{"a": 1}\n']
    assert pipe.is_fifo()
    null = tmp_path / "null"
    null.symlink_to(os.devnull)
    write_json(null, 1)
    checkpoint.save(null, STATE)
    assert stat.S_ISCHR(Path(os.devnull).stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_device(tmp_path: Path) -> None:
    for write in (lambda path: write_json(path, "x" * 100_000), lambda path: checkpoint.save(path, STATE)):
        with pytest.raises(OutputError, match=r"^/dev/full: cannot be written \(No space left on device\); free some"):
            write(Path("/dev/full"))
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="standard output as a file")
def test_standard_output_is_not_replaced(tmp_path: Path) -> None:
    script = "from tldet.system.output import write_json\nprint('before', flush=True)\nwrite_json('/dev/stdout', 1)"
    with (tmp_path / "out.txt").open("a") as file:
        subprocess.run([sys.executable, "-c", script], cwd=ROOT, stdout=file, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\n1\n"
    assert list(tmp_path.iterdir()) == [tmp_path / "out.txt"]


@pytest.mark.parametrize("check", [check_output, lambda path: write_bytes(path, b"")], ids=["check", "write"])
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("a" * 256, "File name too long"),
        ("a/" * 3000, "File name too long"),
        ("a\0b", "its name contains a NUL character"),
        ("a\0/b", "its name contains a NUL character"),
        ("file/b", "Not a directory"),
        ("folder", "Is a directory"),
    ],
)
def test_paths_that_cannot_be(tmp_path: Path, name: str, reason: str, check: Callable[[Path], Any]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match=re.escape(reason)) as raised:
        check(tmp_path / name)
    assert "\n" not in str(raised.value)
    assert "\0" not in str(raised.value)
    assert {one.name for one in tmp_path.iterdir()} <= {"file", "folder", "a"}


def test_the_longest_name_is_written(tmp_path: Path) -> None:
    write_json(tmp_path / ("ä" * 125 + ".json"), 1)
    assert [one.read_text() for one in tmp_path.iterdir()] == ["1\n"]


def test_check_output_does_not_change_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    check_output(tmp_path / "a")
    check_output(tmp_path / "new" / "b")
    assert (tmp_path / "a").read_text() == "old"
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everything")
def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    (tmp_path / "a").chmod(0o444)
    with pytest.raises(OutputError, match="Permission denied"):
        write_json(tmp_path / "a", 1)
    assert (tmp_path / "a").read_text() == "old"


@pytest.mark.parametrize(("failures", "patience", "expected"), [(3, 10.0, "new"), (10**6, 0.1, "old")])
def test_windows_replaces_a_file_that_is_being_read_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int, patience: float, expected: str
) -> None:
    path, left = tmp_path / "a", [failures]
    path.write_text("old")
    replace = Path.replace

    def shared(self: Path, target: Path) -> Path:
        left[0] -= 1
        if left[0] >= 0:
            raise PermissionError(errno.EACCES, "The process cannot access the file because it is being used")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", shared)
    monkeypatch.setattr(output, "RETRIED", (PermissionError,))
    monkeypatch.setattr(output, "RETRY_SECONDS", patience)
    if expected == "new":
        write_bytes(path, b"new")
    else:
        with pytest.raises(OutputError, match="it is being used"):
            write_bytes(path, b"new")
    assert path.read_text() == expected
    assert list(tmp_path.iterdir()) == [path]


def test_writing_by_name(tmp_path: Path) -> None:
    with Replacement(tmp_path / "new" / "a.mp4", sync=False) as new:
        assert new.name.parent == tmp_path / "new"
        new.name.write_bytes(b"video")
        assert not (tmp_path / "new" / "a.mp4").exists()
    assert (tmp_path / "new" / "a.mp4").read_bytes() == b"video"
    with pytest.raises(ValueError, match="no"), Replacement(tmp_path / "new" / "a.mp4") as new:  # noqa: PT012
        new.name.write_bytes(b"half")
        raise ValueError("no")
    assert [one.read_bytes() for one in (tmp_path / "new").iterdir()] == [b"video"]


def test_json_of_any_text(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"naïve ☃": "\ud800"}, indent=1)
    assert json.loads((tmp_path / "a.json").read_bytes()) == {"naïve ☃": "\ud800"}


WRITING = re.compile(
    r"\.write_(text|bytes)\(|open\([^)]*[\"'][rb]*[wax+][wabx+]*[\"']|imwrite\(|savefig\(str|mkstemp\(|mkdtemp\("
    r"|torch\.save\(|export\.save\(|\bnp\.save|\.tofile\(|shutil\.(copy|move)|os\.(open|replace|rename|link)\("
)
OTHERS = {
    "system/output.py": "the writer",
    "runtime/files.py": "the writer of tldet-runtime",
    "data/index_cache.py": "parts of an array in a temporary folder",
    "engine/logging.py": "appends lines",
    "workflows/study/workers.py": "appends what a process prints",
    "transfer/downloads.py": "a digest, in a Replacement",
    "system/downloads.py": "appends to the part of a download",
    "system/unpacking.py": "new files in a temporary folder",
    "inference/runtimes/torch_export.py": "a temporary folder for the check",
    "checkpoint.py": "torch.save to a file of replacing",
    "data/checks/files.py": "np.save to a file of replacing",
    "data/merge/files.py": "copies to a Replacement",
    "exporting/files.py": "a temporary folder for the converter, a buffer in memory",
    "runtime/streams.py": "the null device in place of standard output",
    "workflows/convert.py": "copies to a Replacement",
    "workflows/get_data/get.py": "copies to the folder of unpacked files, which is removed",
    "workflows/predict/jsonl.py": "appends lines",
    "inference/writer.py": "PyAV writes videos to a Replacement",
}


def test_all_files_are_written_by_one_module() -> None:
    found = {}
    for path in sorted((ROOT / "tldet").rglob("*.py")):
        name = path.relative_to(ROOT / "tldet").as_posix()
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if WRITING.search(line)]
        if lines and name not in OTHERS:
            found[name] = lines
    assert found == {}


@pytest.mark.parametrize(
    "line",
    [
        "path.write_text(text)",
        'with open(path, "w") as file:',
        "torch.save(state, path)",
        "np.save(path, array)",
        "np.savez(path, a=array)",
        "shutil.copyfile(a, b)",
        "shutil.copy2(a, b)",
        "shutil.copytree(a, b)",
        "shutil.move(a, b)",
        "handle = os.open(path, os.O_WRONLY)",
        "os.replace(a, b)",
    ],
)
def test_calls_that_write_are_recognized(line: str) -> None:
    assert WRITING.search(line)
