"""Signals during a prediction run: what was predicted so far is written."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from tests.inference.stand import Stand
from tests.inference.test_outputs import film, image
from tldet.cli.main import main
from tldet.workflows.predict.predict import predict

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    found = Stand([[1.0, 1.0, 9.0, 9.0]], [0])
    monkeypatch.setattr("tldet.workflows.predict.predict.load", lambda *_, **__: found)
    return found


def signal_at(stand: Stand, number: int, one: signal.Signals) -> None:
    stand.before = lambda seen: os.kill(os.getpid(), one) if seen == number else None


def frames(path: Path) -> int:
    with av.open(str(path)) as made:
        return sum(1 for _ in made.decode(video=0))


@pytest.mark.parametrize("one", SIGNALS)
def test_a_video_is_finished_and_the_results_written(stand: Stand, tmp_path: Path, one: signal.Signals) -> None:
    before = [signal.getsignal(each) for each in SIGNALS]
    signal_at(stand, 8, one)
    outputs = {"json": tmp_path / "r.json", "csv": tmp_path / "r.csv", "yolo": tmp_path / "yolo"}
    with pytest.raises(KeyboardInterrupt, match="stopped after 12 frames, 12 detections; saved to ") as stop:
        predict("c.pt", [film(tmp_path / "v.mp4", 40)], out=tmp_path / "out", **outputs)  # type: ignore[arg-type]
    assert all(str(path) in str(stop.value) for path in (tmp_path / "out", *outputs.values()))
    assert frames(tmp_path / "out" / "v.mp4") == 12
    records = json.loads((tmp_path / "r.json").read_text())
    assert [record["file_name"].rpartition("#")[2] for record in records] == [str(number) for number in range(12)]
    assert len((tmp_path / "r.csv").read_text().splitlines()) == 13
    assert len(list((tmp_path / "yolo" / "labels").iterdir())) == 12
    assert [signal.getsignal(each) for each in SIGNALS] == before


@pytest.mark.parametrize("others", [(signal.SIGINT,), (signal.SIGTERM, signal.SIGINT)])
def test_signals_within_half_a_second_are_one(stand: Stand, tmp_path: Path, others: tuple[signal.Signals, ...]) -> None:
    """A job manager signals the process group and each process."""

    def send(seen: int) -> None:
        for one in (signal.SIGINT, *others) if seen == 8 else ():
            os.kill(os.getpid(), one)

    stand.before = send
    with pytest.raises(KeyboardInterrupt, match="stopped after 12 frames, 12 detections; saved to "):
        predict("c.pt", [film(tmp_path / "v.mp4", 40)], out=tmp_path / "out", json=tmp_path / "r.json")
    assert frames(tmp_path / "out" / "v.mp4") == 12
    assert len(json.loads((tmp_path / "r.json").read_text())) == 12


def test_no_further_image_is_predicted(stand: Stand, tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path / f"{number}.png")
    signal_at(stand, 2, signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="stopped after 3 images, 3 detections; saved to "):
        predict("c.pt", [tmp_path / "*.png"], out=tmp_path / "out", json=tmp_path / "r.json", batch_size=1)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png", "2.png"]
    assert len(json.loads((tmp_path / "r.json").read_text())) == 3


def test_a_stopped_video_is_not_reported_as_incomplete(
    stand: Stand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    signal_at(stand, 0, signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        predict("c.pt", [film(tmp_path / "v.mp4", 40), film(tmp_path / "w.mp4", 40)])
    assert "shorter than" not in caplog.text
    assert stand.seen == 4, "the video behind it is not predicted"


def test_a_signal_during_the_last_image_loses_no_result(stand: Stand, tmp_path: Path) -> None:
    signal_at(stand, 0, signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match="stopped after 1 image"):
        predict("c.pt", [image(tmp_path / "a.png")], json=tmp_path / "r.json")
    assert len(json.loads((tmp_path / "r.json").read_text())) == 1


def test_the_command_exits_with_130(stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signal_at(stand, 0, signal.SIGTERM)
    arguments = ["predict", "c.pt", str(film(tmp_path / "v.mp4", 40)), "--json", str(tmp_path / "r.json")]
    assert main(arguments) == 130
    reported = capsys.readouterr()
    assert reported.out.startswith("4 frames, 4 detections, ")
    assert f"saved to {tmp_path / 'r.json'}" in reported.err


@pytest.mark.slow
def test_sigterm_to_a_process_at_any_time(run: Path, tmp_path: Path) -> None:
    """Twelve runs on a long video, terminated at different times: every video can be played to its end."""
    clip = film(tmp_path / "v.mp4", 3000)
    for number in range(12):
        out, results = tmp_path / f"out{number}", tmp_path / f"r{number}.json"
        arguments = ["-m", "tldet.cli", "predict", str(run / "best.pt"), str(clip), "--score", "0"]
        process = subprocess.Popen(
            [sys.executable, *arguments, "--out", str(out), "--json", str(results)],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        while "score threshold" not in process.stderr.readline():
            assert process.poll() is None
        time.sleep(1 + 0.25 * number)
        process.terminate()
        if number % 2:  # the second signal of the same request, as ``timeout`` and torchrun send it
            time.sleep(0.1)
            process.send_signal(signal.SIGINT)
        reported = process.stderr.read()
        assert process.wait(60) == 130, reported
        count = frames(out / "v.mp4")
        named = {record["file_name"] for record in json.loads(results.read_text())}
        assert 0 < count < 3000
        assert {f"{clip.as_posix()}#{count - 1}"} <= named
        assert f"{clip.as_posix()}#{count}" not in named
        assert f"saved to {out}" in reported
