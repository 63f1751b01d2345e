"""The command ``tldet-runtime``: its results are those of ``tldet predict``, and bad input is one line."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.runtime.fake import MASKS, FakeSession
from tests.runtime.test_detector import image_of, predictor_of
from tldet.runtime.command import named_images, run_command
from tldet.workflows.predict.predict import predict


@pytest.fixture(autouse=True)
def session(monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    found = FakeSession(masks=MASKS)
    monkeypatch.setattr("tldet.runtime.detector.open_session", lambda *_, **__: found)
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Images in two folders, one that cannot be read, and other files; the current folder is above them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in" / "b").mkdir(parents=True)
    for number, name in enumerate(("c.jpg", "a.PNG", "b/ä b.webp")):
        cv2.imencode(Path(name).suffix.lower(), image_of(60, 90 + number, number))[1].tofile(tmp_path / "in" / name)
    (tmp_path / "in" / "broken.png").write_bytes(b"x")
    (tmp_path / "in" / ".hidden").mkdir()
    for name in ("notes.txt", ".hidden.jpg", ".hidden/a.jpg"):
        (tmp_path / "in" / name).write_bytes(b"x")
    return tmp_path / "in"


def test_the_json_is_that_of_tldet_predict(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("tldet.workflows.predict.predict.load", lambda *_, **__: predictor_of(FakeSession(masks=MASKS)))
    Path("m.onnx").write_bytes(b"")
    assert run_command(["m.onnx", "in", "--json", "out/ours.json", "--score", "0.2", "--batch-size", "2"]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[0] == "in/a.PNG: dög 0.90, cat 0.31"
    assert told.err.splitlines() == [
        "in/broken.png: is not an image that OpenCV can read; convert it to JPEG or PNG",
        "3 images, 6 detections, 1 could not be read",
    ]
    predict("m.onnx", "in", json="theirs.json", score=0.2)
    assert json.loads(Path("out/ours.json").read_text()) == json.loads(Path("theirs.json").read_text())
    assert [path.name for path in Path("out").iterdir()] == ["ours.json"]


def test_json_on_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["m.onnx", "in/c.jpg", "--json", "-"]) == 0
    assert [record["file_name"] for record in json.loads(capsys.readouterr().out)] == ["in/c.jpg"] * 2


def test_drawn_images_keep_their_names(folder: Path) -> None:
    assert run_command(["m.onnx", "in", "--draw", "out"]) == 0
    files = sorted(path.relative_to("out").as_posix() for path in Path("out").rglob("*") if path.is_file())
    assert files == ["in/a.PNG", "in/b/ä b.webp.png", "in/c.jpg"]
    drawn, image = cv2.imread("out/in/a.PNG"), cv2.imread("in/a.PNG")
    assert drawn.shape == image.shape
    assert (drawn != image).any(2).mean() > 0.1
    assert run_command(["m.onnx", "out/../in/c.jpg", str(folder / "c.jpg"), "--draw", "again"]) == 0
    assert len(list(Path("again").rglob("*.jpg"))) == 2, "names do not replace each other"


@pytest.mark.parametrize("option", [["--json", "out.json"], ["--draw", "out"]])
def test_existing_outputs_are_replaced_only_with_the_option(
    folder: Path, option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("out.json" if option[0] == "--json" else "out/in/c.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"of the user")
    assert run_command(["m.onnx", "in/c.jpg", *option]) == 2
    assert f"{path}: already exists; choose another path, or replace it with --overwrite" in capsys.readouterr().err
    assert path.read_bytes() == b"of the user"
    assert run_command(["m.onnx", "in/c.jpg", *option, "--overwrite"]) == 0
    assert path.read_bytes() != b"of the user"


def test_images_are_found_once_and_in_order(folder: Path) -> None:
    everything = ["in/a.PNG", "in/b/ä b.webp", "in/broken.png", "in/c.jpg"]
    assert named_images(["in"]) == everything
    assert named_images(["in/c.jpg", "in/*.jpg", "in"]) == ["in/c.jpg", *everything[:3]]
    assert named_images(["in/**/*.webp"]) == ["in/b/ä b.webp"]
    assert named_images(["in/notes.txt"]) == ["in/notes.txt"], "a named file is taken as an image"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["m.onnx", "none.jpg"], "none.jpg: no such file, or a folder without images"),
        (["m.onnx", "empty"], "empty: no such file"),
        (["m.onnx", "in/broken.png"], "nothing predicted: 1 image could not be read"),
        (["m.onnx", "in", "--json", "in"], "'in': cannot be written (Is a directory)"),
        (["m.onnx", "in", "--json", "in/c.jpg/x.json"], "cannot be written"),
        (["m.onnx", "in", "--draw", "in/c.jpg"], "cannot be written"),
        (["m.onnx", "in", "--json", "x" * 300], "cannot be written"),
        (["m.onnx", "in", "--json", "in/c.jpg"], "in/c.jpg: is an input and would be overwritten"),
        (["m.onnx", "in", "--json", "m.onnx"], "m.onnx: is an input and would be overwritten"),
        (["m.onnx", "in", "--draw", "."], "in/a.PNG: is an input and would be overwritten"),
    ],
)
def test_bad_input_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    Path("empty").mkdir()
    before = sorted(path for path in folder.rglob("*"))
    assert run_command(arguments) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("tldet-runtime: error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert sorted(path for path in folder.rglob("*")) == before


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--score", "1.5"], "must be from 0 to 1, not 1.5"),
        (["--score", "nan"], "must be from 0 to 1"),
        (["--threads", "0"], "must be an integer of at least 1"),
        (["--batch-size", "two"], "must be an integer of at least 1"),
        (["--thread", "1"], "unrecognized arguments"),
    ],
)
def test_options_are_checked(option: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        run_command(["m.onnx", "a.jpg", *option])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_an_error_of_the_program_keeps_its_traceback(folder: Path, session: FakeSession) -> None:
    session.run = lambda *_: np.zeros(3)[7]  # type: ignore[method-assign]
    with pytest.raises(IndexError):
        run_command(["m.onnx", "in/c.jpg"])


class Unwritable(io.StringIO):
    """A stream on a full disk, or one whose reader has ended."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error

    def write(self, text: str) -> int:
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"), [(OSError(errno.ENOSPC, "No space left on device"), 2), (BrokenPipeError(), 1)]
)
def test_standard_output_that_cannot_be_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: OSError, code: int
) -> None:
    monkeypatch.setattr("sys.stdout", Unwritable(error))
    told = "tldet-runtime: error: standard output: cannot be written (No space left on device)\n" if code == 2 else ""
    for output in ([], ["--json", "-"], ["--json", "kept.json"]):
        assert run_command(["m.onnx", "in/c.jpg", "in/a.PNG", *output]) == code
        assert capsys.readouterr().err.endswith(told)
    assert len(json.loads(Path("kept.json").read_text())) == 4, "files are complete"


def test_closed_standard_output(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(f"sys.{name}", None)
        assert run_command(["m.onnx", "in/c.jpg", "in/broken.png"]) == 0


def test_too_little_memory(folder: Path, session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> list[np.ndarray]:
        raise MemoryError

    session.run = fail  # type: ignore[method-assign]
    assert run_command(["m.onnx", "in/c.jpg"]) == 2
    assert capsys.readouterr().err == "tldet-runtime: error: out of memory; reduce --batch-size\n"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_pipes_and_links_are_not_replaced(folder: Path) -> None:
    os.mkfifo("pipe")
    reader = os.open("pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert run_command(["m.onnx", "in/c.jpg", "--json", "pipe"]) == 0
        assert len(json.loads(os.read(reader, 1 << 16))) == 2
    finally:
        os.close(reader)
    assert Path("pipe").is_fifo()
    Path("link.json").symlink_to("target.json")
    assert run_command(["m.onnx", "in/c.jpg", "--json", "link.json"]) == 0
    assert Path("link.json").is_symlink()
    assert len(json.loads(Path("target.json").read_text())) == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_the_results_so_far(
    folder: Path, session: FakeSession, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    run, handlers = session.run, (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))

    def stopped(*given: Any) -> Any:
        if len(session.given) == 2:
            os.kill(os.getpid(), number)
        return run(*given)

    session.run = stopped  # type: ignore[method-assign]
    names = [f"copy{position}.png" for position in range(5)]
    for name in names:
        cv2.imwrite(str(folder / name), np.full((40, 60, 3), 90, np.uint8))
    paths = [str(folder / name) for name in names]
    found = folder / "found.json"
    assert run_command(["fake.onnx", *paths, "--json", str(found), "--batch-size", "1"]) == 130
    records = json.loads(found.read_text("utf-8"))
    done = sorted({record["file_name"] for record in records})
    assert 1 <= len(done) <= 2
    assert done == [Path(path).as_posix() for path in paths[: len(done)]]
    left = 5 - len(done)
    error = capsys.readouterr().err
    assert f"stopped before {paths[len(done)]}; run the command again with the remaining {left} of 5 images" in error
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
