"""Video writing with PyAV: H.264 that browsers play."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from tldet.errors import DataError
from tldet.inference.threads import AHEAD, BackgroundWorker
from tldet.inference.timing import CLOCK
from tldet.inference.video import Frame, reason_of
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray
from tldet.system.output import Replacement
from tldet.visualize.drawing import draw


class VideoWriter:
    """Writer of H.264 video (yuv420p, index in front), frame by frame.

    B-frames are off, so that every frame keeps its own duration. An odd height or width is extended by one row or
    column. Frames of another size than the first one are resized to it.

    Args:
        path: an .mp4 file.
        rate: nominal frames per second.

    Raises:
        DataError: the file cannot be created; :meth:`write` and :meth:`close` raise it too (full disk).
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self._stream: Any = None
        self._end = 0  # of the last frame, in ticks of CLOCK
        self._durations: dict[int, int] = {}
        self._file: Replacement | None = None
        with self._naming():
            self._file = Replacement(path, sync=False)
            self._container = av.open(f"file:{self._file.name}", "w", format="mp4", options={"movflags": "faststart"})

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, image: ImageArray, start: Fraction | None = None, duration: Fraction | None = None) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 RGB.
            start: seconds; after the previous frame by default.
            duration: seconds; one frame at the nominal rate by default.
        """
        height, width = image.shape[:2]
        even = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._stream is None:
            self._add_stream(*even.shape[:2])
        size = (self._stream.width, self._stream.height)
        if size != even.shape[1::-1]:
            even = cv2.resize(even, size, interpolation=cv2.INTER_AREA)
        yuv = cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420)  # three times as fast as swscale
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
        """Finish the file, which then contains the frames written so far.

        Without a frame, or after a failed write, no new file is written, and an earlier one is kept.
        """
        try:
            if self._stream is not None:
                self._mux(None)
        finally:
            with self._naming():
                self._container.close()
        if self._file is not None:
            with self._naming():
                if self._end:
                    self._file.commit()
                else:
                    self._file.discard()

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Encode a frame and write the packets; None flushes the encoder."""
        stream, self._stream = self._stream, None
        with self._naming():
            for packet in stream.encode(frame):
                packet.duration = self._durations.pop(packet.pts, packet.duration)
                self._container.mux(packet)
        self._stream = stream  # not restored after an error: FFmpeg crashes if the stream is used again

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """Turn write errors into a DataError with the file name, and remove the unfinished file."""
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            if self._file is not None:
                self._file.discard()
                self._file = None
            raise DataError(
                f"{self.path}: cannot be written ({reason_of(error)}); free disk space or choose another --out"
            ) from None


@contextlib.contextmanager
def drawn_video(path: Path | None, rate: Fraction) -> Iterator[Callable[[Frame, Detections], None]]:
    """Yield a function that draws detections on frames and writes them in a separate thread.

    Args:
        path: the video; None draws and writes nothing.
        rate: nominal frames per second.

    Raises:
        DataError: the video cannot be written.
    """
    if path is None:
        yield lambda _frame, _detections: None
        return
    with VideoWriter(path, rate) as writer:

        def write(given: tuple[Frame, Detections]) -> None:
            frame, detections = given
            writer.write(draw(frame.image, detections), frame.start, frame.duration)

        with BackgroundWorker(write, AHEAD) as drawing:
            yield lambda frame, detections: drawing.put((frame, detections))
