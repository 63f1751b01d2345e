"""Writing video through PyAV: H.264 that browsers play."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from tldet.data.images import Picture
from tldet.errors import DataError
from tldet.inference.timing import CLOCK
from tldet.inference.video import reason_of


class VideoWriter:
    """Writer of H.264 video (yuv420p, index in front), frame by frame.

    Without B-frames, so that every frame has its own duration in the file. An odd height or width is extended by one
    row or column. Frames of another size than the first are scaled to it.

    Args:
        path: an .mp4 file.
        rate: nominal frames per second.

    Raises:
        DataError: the file cannot be created; :meth:`write` and :meth:`close` raise it too, if the disk is full.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self._stream: Any = None
        self._end = 0  # of the last frame, in ticks of CLOCK
        self._durations: dict[int, int] = {}
        with self._naming():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "faststart"})

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, image: Picture, start: Fraction | None = None, duration: Fraction | None = None) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            start: seconds; after the previous frame by default.
            duration: seconds; by default that of a frame at the nominal rate.
        """
        height, width = image.shape[:2]
        even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._stream is None:
            self._add_stream(*even.shape[:2])
        size = (self._stream.width, self._stream.height)
        if size != even.shape[1::-1]:
            even = cv2.resize(even, size, interpolation=cv2.INTER_AREA)
        yuv = cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420)  # in a third of swscale's time
        frame = av.VideoFrame.from_ndarray(np.asarray(yuv, np.uint8), format="yuv420p")
        frame.time_base, frame.pts = 1 / CLOCK, self._end if start is None else round(start * CLOCK)
        self._durations[frame.pts] = max(1, round((1 / self.rate if duration is None else duration) * CLOCK))
        self._end = frame.pts + self._durations[frame.pts]
        self._mux(frame)

    def _add_stream(self, height: int, width: int) -> None:
        stream: Any = self._container.add_stream(
            "libx264", rate=self.rate, options={"crf": "20", "preset": "veryfast", "bf": "0"}
        )
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.time_base = stream.codec_context.time_base = 1 / CLOCK
        self._stream = stream

    def close(self) -> None:
        """Complete the file; the frames written so far play."""
        try:
            if self._stream is not None:
                self._mux(None)
        finally:
            with self._naming():
                self._container.close()

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Write the packets that the encoder returns for a frame; for None those that it held back."""
        stream, self._stream = self._stream, None
        with self._naming():
            for packet in stream.encode(frame):
                packet.duration = self._durations.pop(packet.pts, packet.duration)
                self._container.mux(packet)
        self._stream = stream  # a stream that could not be written is gone: FFmpeg crashes when it is tried again

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Report a failure to write in one line with the file's name."""
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            raise DataError(
                f"{self.path}: cannot be written ({reason_of(error)}); make room or choose another --out"
            ) from None
