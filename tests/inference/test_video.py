"""Video files of every kind, timed, turned and damaged."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.inference.stand import Stand
from tldet.errors import DataError
from tldet.inference.sources import input_kind
from tldet.inference.video import Video
from tldet.inference.writer import VideoWriter
from tldet.workflows.predict.predict import predict
from tldet.workflows.predict.summary import Summary

UNEVEN = [0, 0.5, 0.6, 1.2, 1.3, 2, 2.04, 2.08, 2.12, 2.2, 3, 3.5, 4, 4.1, 4.2, 4.5, 4.82]
EVEN = [number / 25 for number in range(25)]
Change = Callable[[Any, int], None]


def film(
    path: Path,
    times: Sequence[float] = EVEN,
    codec: str = "libx264",
    form: str | None = None,
    change: Change | None = None,
    turn: int = 0,
    title: str = "",
) -> Path:
    """A video whose frame n has shade 9 n, with frames at the times given in seconds."""
    options = {"g": "5"} if codec == "libx264" else {}
    with av.open(str(path), "w", format=form) as made:
        stream: Any = made.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        if codec == "libx264":
            stream.codec_context.time_base = Fraction(1, 1000)
        base = stream.codec_context.time_base or Fraction(1, 25)
        if title:
            made.metadata["title"] = title
        if turn:
            stream.set_display_rotation(turn)
        sent = 0
        for number, time in enumerate([*times, None]):
            frame = None if time is None else av.VideoFrame.from_ndarray(shade(number), format="rgb24")
            if frame is not None and time is not None:
                frame.pts, frame.time_base = round(time / base), base
            for packet in stream.encode(frame):
                if change:
                    change(packet, sent)
                sent += 1
                made.mux(packet)
    return path


def shade(number: int) -> NDArray[np.uint8]:
    image = np.full((64, 96, 3), 9 * number, np.uint8)
    image[:16, :24] = 255  # the upper left
    return image


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Path], tuple[Summary, Path]]:
    """Detections of a video by :func:`predict`."""
    monkeypatch.setattr("tldet.workflows.predict.predict.load", lambda *_, **__: Stand())

    def one(path: Path) -> tuple[Summary, Path]:
        summary = predict("c.pt", [path], out=tmp_path / "out", overwrite=True)
        return summary, tmp_path / "out" / path.with_suffix(".mp4").name

    return one


def timed(path: Path) -> tuple[list[float], float]:
    """Times of a written video's frames, and its duration."""
    with av.open(str(path)) as made:
        stream = made.streams.video[0]
        assert stream.duration is not None
        times = [frame.time for frame in made.decode(stream)]
        return [time for time in times if time is not None], float(stream.duration * (stream.time_base or 0))


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_frames_keep_their_times(run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path, name: str) -> None:
    summary, made = run(film(tmp_path / name, UNEVEN))
    times, duration = timed(made)
    assert summary.frames == len(UNEVEN)
    assert times == pytest.approx(UNEVEN, abs=0.002)
    assert duration == pytest.approx(4.86, abs=0.03)
    assert not summary.failed
    assert not summary.damaged


@pytest.mark.parametrize("longest", [3.0, 30.0])
def test_a_last_frame_that_stays_keeps_its_duration(
    run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path, longest: float
) -> None:
    path = tmp_path / "v.mp4"
    with VideoWriter(path, Fraction(25)) as writer:
        for number in range(3):
            writer.write(shade(number), Fraction(number, 25), Fraction(longest) if number == 2 else Fraction(1, 25))
    assert timed(path)[1] == pytest.approx(longest + 0.08, abs=0.001)
    assert timed(run(path)[1])[1] == pytest.approx(longest + 0.08, abs=0.001)


@pytest.mark.parametrize(
    ("name", "codec", "form"),
    [
        ("v.ts", "libx264", "mpegts"),
        ("v.wmv", "wmv2", "asf"),
        ("v.flv", "libx264", "flv"),
        ("v.3gp", "mpeg4", "3gp"),
        ("v.m2ts", "mpeg2video", "mpegts"),
        ("v.vob", "mpeg2video", "vob"),
        ("v.ogv", "libtheora", "ogg"),
        ("v.h264", "libx264", "h264"),
        ("v", "libx264", "mp4"),
        ("v.jpg", "libx264", "matroska"),
        ("v%d.dat", "mpeg4", "avi"),
        ("concat:v", "libx264", "mov"),
    ],
)
def test_containers_are_recognized_by_content(
    run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path, name: str, codec: str, form: str
) -> None:
    if codec not in av.codecs_available or _encoder_missing(codec):
        pytest.skip(f"FFmpeg was built without {codec}")
    (tmp_path / "in").mkdir()
    film(tmp_path / "in" / name, EVEN, codec, form)
    assert input_kind(tmp_path / "in" / name) == "video"
    summary, made = run(tmp_path / "in" / name)
    assert (summary.frames, summary.images) == (25, 0)
    assert timed(made)[1] == pytest.approx(1.0, abs=0.05)
    assert predict("c.pt", [tmp_path / "in"]).frames == 25, "likewise in a folder"


def _encoder_missing(codec: str) -> bool:
    try:
        av.Codec(codec, "w")
    except ValueError:
        return True
    return False


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"const a: number = 1;\n" * 400,
        b"#EXTM3U\n#EXTINF:1,\n{}\n",
        b"ffconcat version 1.0\nfile '{}'\n",
        "subtitle\n".encode("utf-16") * 90,
        "caf\u00e9\n".encode("latin-1") * 900,
        bytes(70000),
        random.Random(3).randbytes(200_000),
    ],
)
def test_other_files_are_no_videos(tmp_path: Path, content: bytes) -> None:
    target = film(tmp_path / "target.mp4")
    path = tmp_path / "x.ts"
    path.write_bytes(content.replace(b"{}", str(target).encode()))
    assert input_kind(path) is None
    path = path.rename(tmp_path / "x.mp4")
    with pytest.raises(DataError, match=r"x\.mp4: is not a readable video"):
        list(Video(path))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "sound.ogg"
    with av.open(str(path), "w") as made:
        stream = made.add_stream("libopus", rate=48000)
        sound: Any = av.AudioFrame.from_ndarray(np.zeros((1, 960), np.float32), format="flt", layout="mono")
        sound.sample_rate = 48000
        made.mux(stream.encode(sound))
        made.mux(stream.encode(None))
    assert input_kind(path) is None


def test_damaged_packets_are_skipped_and_counted(
    run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = film(tmp_path / "v.mp4", EVEN)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as opened:
        packets = [(packet.pos, packet.size) for packet in opened.demux(video=0) if packet.size]
    for number in (4, 9, 16):
        at, size = packets[number]
        assert at is not None
        content[at : at + size] = bytes(size)
    path.write_bytes(content)
    summary, made = run(path)
    times, duration = timed(made)
    assert summary.damaged == {str(path): 3}
    assert not summary.failed
    assert "v.mp4: 3 damaged packets skipped" in caplog.text
    assert 22 <= summary.frames == len(times)
    assert duration == pytest.approx(1.0, abs=0.05), "the others keep their times"


def test_a_video_that_ends_early_is_reported(
    run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with VideoWriter(tmp_path / "v.mp4", Fraction(25)) as writer:
        noise = np.random.default_rng(0)
        for _ in range(50):
            writer.write(noise.integers(0, 255, (64, 96, 3), np.uint8))
    content = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "empty.mp4").write_bytes(content[: content.index(b"mdat") + 9])
    with pytest.raises(DataError, match="nothing predicted: 1 input could not be read"):
        run(tmp_path / "empty.mp4")
    (tmp_path / "v.mp4").write_bytes(content[: len(content) // 2])
    summary, made = run(tmp_path / "v.mp4")
    assert 0 < summary.frames < 50
    assert f"shorter than stated in the file ({summary.frames} frames" in caplog.text
    assert "of 50 frames, 2.00 s" in caplog.text
    assert timed(made)[1] == pytest.approx(summary.frames / 25, abs=0.05)


def restamp(times: Sequence[int]) -> Change:
    def change(packet: Any, number: int) -> None:
        packet.pts = packet.dts = times[number % len(times)] + number // len(times) * 200
        packet.time_base = Fraction(1, 1000)

    return change


@pytest.mark.parametrize(("times", "duration"), [([0, 40, 40, 80, 160], 1.0), ([0, 0, 0, 0, 0], 1.0)])
def test_times_that_repeat(
    run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path, times: list[int], duration: float
) -> None:
    summary, made = run(film(tmp_path / "v.mkv", EVEN, "mpeg4", change=restamp(times)))
    found, lasted = timed(made)
    assert summary.frames == 25
    assert lasted == pytest.approx(duration, abs=0.05)
    assert min(np.diff(found)) > 0.01


def test_a_turned_video_comes_out_upright(run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path) -> None:
    for turn, (rows, columns) in {
        90: (slice(-16, None), slice(0, 16)),
        180: (slice(-16, None), slice(-16, None)),
    }.items():
        path = film(tmp_path / f"turned{turn}.mp4", turn=turn)
        image = next(iter(Video(path))).image
        assert image.shape == ((96, 64, 3) if turn == 90 else (64, 96, 3))
        assert image[rows, columns].mean() > 230
        with av.open(str(run(path)[1])) as made:
            frame = next(made.decode(video=0))
            assert (frame.height, frame.width, frame.rotation) == (*image.shape[:2], 0)


def test_frames_of_another_size_are_scaled(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4", Fraction(25)) as writer:
        for size in ((64, 96), (120, 160), (31, 33)):
            writer.write(np.full((*size, 3), 200, np.uint8))
    images = [frame.image for frame in Video(tmp_path / "v.mp4")]
    assert [image.shape for image in images] == [(64, 96, 3)] * 3
    assert all(abs(float(image.mean()) - 200) < 4 for image in images)


def talkie(path: Path, codec: str, sound: str, form: str, length: int) -> Path:
    """A video of noise and, unless ``sound`` is empty, sound."""
    noise = np.random.default_rng(0)
    with av.open(
        str(path), "w", format=form, options={"movflags": "faststart"} if form in ("mp4", "mov") else {}
    ) as made:
        stream: Any = made.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        audio: Any = made.add_stream(sound, rate=48000, layout="mono") if sound else None
        size = (audio.codec_context.frame_size or 960) if audio else 0
        for number in range(length):
            frame = av.VideoFrame.from_ndarray(noise.integers(0, 255, (64, 96, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            made.mux(stream.encode(frame))
            for start in range(number * 1920 // size * size, (number + 1) * 1920 // size * size, size) if size else ():
                sample = audio.codec_context.format.name
                silence = np.zeros((1, size), np.int16 if sample.startswith("s16") else np.float32)
                part = av.AudioFrame.from_ndarray(silence, format=sample, layout="mono")
                part.sample_rate, part.pts, part.time_base = 48000, start, Fraction(1, 48000)
                made.mux(audio.encode(part))
        made.mux(stream.encode(None))
        if audio:
            made.mux(audio.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "codec", "sound", "form"),
    [
        ("v.mp4", "libx264", "", "mp4"),
        ("v.mp4", "libx264", "aac", "mp4"),
        ("v.avi", "mpeg4", "", "avi"),
        ("v.mkv", "libx264", "", "matroska"),
        ("v.mkv", "libx264", "aac", "matroska"),
        ("v.webm", "libvpx", "libopus", "webm"),
        ("v.flv", "libx264", "", "flv"),
        ("v.ivf", "libvpx", "", "ivf"),
    ],
)
def test_a_truncated_file_is_reported_and_a_complete_one_is_not(
    run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path, name: str, codec: str, sound: str, form: str
) -> None:
    path = talkie(tmp_path / name, codec, sound, form, 100)
    summary, _ = run(path)
    assert (summary.frames, summary.incomplete) == (100, {})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 55 // 100])
    summary, _ = run(path)
    assert 40 < summary.frames < 70
    assert f"shorter than stated in the file ({summary.frames} frames, " in summary.incomplete[str(path)]
    assert "1 video incomplete" in summary.describe()


@pytest.mark.parametrize(
    ("name", "codec", "form", "reported"),
    [("v.mp4", "libx264", "mp4", True), ("v.mov", "mpeg4", "mov", True), ("v.mkv", "libx264", "matroska", False)],
)
def test_a_few_missing_frames(tmp_path: Path, name: str, codec: str, form: str, reported: bool) -> None:
    """195 of 200 frames: exact numbers of MP4 and MOV are compared; others are estimates with a tolerance of 5 %."""
    path = talkie(tmp_path / name, codec, "", form, 200)
    whole = Video(path)
    assert (sum(1 for _ in whole), whole.problems()) == (200, "")
    with av.open(str(path)) as opened:
        places = [packet.pos for packet in opened.demux(video=0) if packet.size]
    path.write_bytes(path.read_bytes()[: places[195]])
    video = Video(path)
    assert sum(1 for _ in video) == 195
    expected = "shorter than stated in the file (195 frames, 7.80 s of 200 frames, 8.00 s)" if reported else ""
    assert video.problems() == expected


def test_frames_that_an_edit_list_cuts_off_are_not_missing(tmp_path: Path) -> None:
    whole = talkie(tmp_path / "whole.mp4", "libx264", "", "mp4", 50)
    with av.open(str(whole)) as opened, av.open(str(tmp_path / "v.mp4"), "w") as made:
        stream = made.add_stream_from_template(opened.streams.video[0])
        for packet in opened.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - 10 * 512, packet.dts - 10 * 512, stream
                made.mux(packet)
    video = Video(tmp_path / "v.mp4")
    assert video.exact
    assert sum(1 for _ in video) == video.frames
    assert video.problems() == ""


def test_a_title_in_another_encoding(tmp_path: Path) -> None:
    path = tmp_path / "old.avi"
    film(path, EVEN, "mpeg4", title="TITLETITLE")
    content = path.read_bytes()
    assert b"TITLETITLE" in content
    path.write_bytes(content.replace(b"TITLETITLE", "Ausflüge".encode("latin-1") + b"  "))
    assert sum(1 for _ in Video(path)) == len(EVEN)


def test_a_video_without_a_readable_frame_replaces_no_file(
    run: Callable[[Path], tuple[Summary, Path]], tmp_path: Path
) -> None:
    path = film(tmp_path / "v.mp4", EVEN)
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as opened:
        packets = [(packet.pos, packet.size) for packet in opened.demux(video=0) if packet.size]
    for at, size in packets:
        content[at : at + size] = bytes(size)
    path.write_bytes(content)
    for earlier in (None, b"earlier"):
        if earlier:
            (tmp_path / "out" / "v.mp4").write_bytes(earlier)
        with pytest.raises(DataError, match="nothing predicted: 1 input could not be read"):
            run(path)
        assert [one.read_bytes() for one in (tmp_path / "out").iterdir()] == ([earlier] if earlier else [])
