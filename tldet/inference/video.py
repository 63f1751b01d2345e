"""Video reading with PyAV: upright frames with their times."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from tldet.errors import DataError
from tldet.inference.threads import AHEAD, prefetch
from tldet.inference.timing import Span, spans
from tldet.structures.image import ImageArray
from tldet.system.inputs import require_file
from tldet.text import counted

# Video containers and raw streams. FFmpeg must not read other formats: images, subtitles, and playlists, which may
# refer to other files and addresses.
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "avi", "asf", "flv", "mpegts", "mpeg", "ogg", "nut", "mxf", "gxf", "dv",
    "rm", "ivf", "nsv", "wtv", "h264", "hevc", "vvc", "obu", "av1", "mpegvideo", "m4v", "mjpeg", "yuv4mpegpipe",
)  # fmt: skip
_RATES = (Fraction(1, 100), Fraction(240))  # plausible frames per second; some files state ticks of their clock instead
STANDARD = Fraction(25)  # frames per second of a file without a plausible rate
SHORT = Fraction(1, 5)  # seconds by which a video may be shorter than stated
RETRIES = 50  # consecutive failed reads after which reading stops
DURATION = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")  # tag of a Matroska stream


@dataclass(frozen=True)
class Frame:
    """A video frame: image (H, W, 3) uint8 RGB; start and duration in seconds, the first frame at 0."""

    image: ImageArray
    start: Fraction
    duration: Fraction


def open_video(path: Path) -> tuple[Any, Any]:
    """Open a file, recognized by content; return the container and its first video stream (no cover image).

    Raises:
        DataError: the file is not a readable video.
    """
    require_file(path, DataError)
    options = {"format_whitelist": ",".join(CONTAINERS), "protocol_whitelist": "file"}
    try:  # titles and other texts of old files are in any encoding
        container = av.open(f"file:{path}", container_options=options, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError(f"{path}: is not a readable video ({reason_of(error)})") from None
    cover = av.stream.Disposition.attached_pic
    stream = next((s for s in container.streams.video if s.codec_context and not s.disposition & cover), None)
    if stream is None or not stream.codec_context.width:
        container.close()
        raise DataError(f"{path}: is not a readable video (no video stream that can be decoded)")
    return container, stream


def _stated_length(container: Any, stream: Any) -> Fraction:
    """Return the duration of a video stream according to its file in seconds; 0 if not stated."""
    tags = [DURATION.fullmatch(text) for key, text in stream.metadata.items() if key.upper().startswith("DURATION")]
    tagged = next((int(t[1]) * 3600 + int(t[2]) * 60 + Fraction(t[3]) for t in tags if t), None)
    stated: Fraction | None = (stream.duration or 0) * Fraction(stream.time_base or 0) or tagged
    if container.format.name == "avi" and stream.frames and stream.average_rate:
        by_count = Fraction(stream.frames) / Fraction(stream.average_rate)
        return max(stated or by_count, by_count)  # FFmpeg shortens the duration to the size of the file
    if stated is None and len(container.streams) == 1:  # the container's duration is that of its longest stream
        return Fraction(container.duration or 0, av.time_base)
    return stated or Fraction(0)


def _frames_in_table(container: Any, stream: Any) -> int:
    """Return the exact number of frames to show, from the sample table of an MP4 or MOV file; 0 if there is none.

    Samples that an edit list cuts off do not count. A fragmented file has no table of all frames.
    """
    entries = getattr(stream, "index_entries", None)  # older versions of PyAV lack them
    if not container.format.name.startswith("mov") or not stream.frames or entries is None:
        return 0
    return sum(not entry.is_discard for entry in entries)


def reason_of(error: Exception) -> str:
    """Return the message of an FFmpeg or system error without its number."""
    return str(getattr(error, "strerror", None) or error)


class Video:
    """The frames of a video file.

    Attributes:
        rate: nominal frames per second.
        frames: number of frames stated in the file; 0 if not stated.
        exact: ``frames`` is the number of samples of an MP4 or MOV file.
        damaged: number of packets so far that could not be read or decoded and were skipped.
        faulty: number of frames so far with image errors reported by the decoder.

    Raises:
        DataError: the file is not a readable video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.damaged = self.faulty = 0
        self._decoded, self._length = 0, Fraction(0)
        container, stream = open_video(path)
        with container:
            stated = (stream.average_rate, stream.guessed_rate, stream.base_rate)
            self.rate = next((Fraction(rate) for rate in stated if rate and _RATES[0] <= rate <= _RATES[1]), STANDARD)
            samples = _frames_in_table(container, stream)
            self.frames, self.exact = samples or int(stream.frames or 0), bool(samples)
            base, length = Fraction(stream.time_base or 0), stream.duration or 0
            self._end = (length + (stream.start_time or 0)) * base or None
            self._stated = _stated_length(container, stream)

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames, which a thread decodes ahead."""
        return prefetch(self._timed(), AHEAD)

    def problems(self) -> str:
        """Describe damage found while reading, and a file that is shorter than stated; empty if there is none.

        Of an MP4 or MOV file with a sample table, every missing frame is reported. Other containers state an estimate
        of the duration: up to 0.2 s or 5 % may be missing, whichever is more.
        """
        found = [f"{counted(self.damaged, 'damaged packet')} skipped"] if self.damaged else []
        found += [f"{counted(self.faulty, 'frame')} with errors in the image"] if self.faulty else []
        if self._is_short():
            stated = f"{counted(self.frames, 'frame')}, " if self.frames else ""
            read = f"{counted(self._decoded, 'frame')}, {float(self._length):.2f} s"
            found.append(f"shorter than stated in the file ({read} of {stated}{float(self._stated):.2f} s)")
        return "; ".join(found)

    def _is_short(self) -> bool:
        if self.exact:
            return self._decoded + self.damaged < self.frames
        missing = self._stated - self._length
        return missing > max(SHORT, self._stated / 20) and self._decoded < (self.frames or self._decoded + 1)

    def _timed(self) -> Iterator[Frame]:
        stamped = ((frame, _span(frame)) for frame in self._frames())
        for frame, start, duration in spans(stamped, 1 / self.rate, self._stated_end):
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            image = np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
            self._decoded, self._length = self._decoded + 1, start + duration
            yield Frame(image, start, duration)
        if not self._decoded:
            raise DataError(f"{self.path}: is not a readable video (none of its frames could be decoded)")

    def _stated_end(self) -> Fraction | None:
        """Return the stated end of the last frame; None if frames are missing."""
        return None if self._decoded + 1 < self.frames else self._end

    def _frames(self) -> Iterator[Any]:
        """Yield every frame that can be decoded; damaged packets are skipped and counted."""
        self.damaged = self.faulty = self._decoded = 0
        container, stream = open_video(self.path)
        with container:
            stream.thread_type = "AUTO"
            for packet in self._packets(container, stream):
                try:
                    frames, broken = packet.decode(), packet.is_corrupt
                except av.error.FFmpegError:
                    frames, broken = [], True
                self.damaged += broken
                self.faulty += sum(frame.is_corrupt for frame in frames)
                yield from frames

    def _packets(self, container: Any, stream: Any) -> Iterator[Any]:
        """Yield all packets of the file, including the empty packet that ends the stream."""
        failures = 0
        while failures < RETRIES:
            try:
                for packet in container.demux(stream):
                    failures = 0
                    yield packet
                return
            except av.error.FFmpegError:
                failures += 1
                self.damaged += failures == 1  # further failures at the same position are one damage


def _span(frame: Any) -> Span:
    """Return time and duration of a decoded frame in seconds, each None if not stated."""
    base = frame.time_base
    if not base:
        return None, None
    start = None if frame.pts is None else frame.pts * Fraction(base)
    return start, frame.duration * Fraction(base) if frame.duration else None


def camera(number: int) -> Iterator[Frame]:
    """Yield frames of a camera until the camera or the user stops, timed at the standard rate.

    Raises:
        DataError: there is no such camera.
    """
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise DataError(f"camera {number}: cannot be opened")
        for taken in count():
            there, frame = capture.read()
            if not there:
                return
            image = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
            yield Frame(image, taken / STANDARD, 1 / STANDARD)
    finally:
        capture.release()
