"""Video in and out through PyAV: every frame once, upright, and H.264 that browsers play."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, TypeVar

import av
import cv2
import numpy as np

from tldet.data.images import Picture
from tldet.errors import DataError

AHEAD = 8  # frames decoded before they are asked for, and drawn on after they were given
T = TypeVar("T")


class Video:
    """A video file's frames.

    Attributes:
        rate: frames a second.
        frames: how many the file says it holds; 0 where it does not say.

    Raises:
        DataError: it cannot be read as video.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with av.open(str(path)) as container:
                stream = container.streams.video[0]
                self.rate = Fraction(stream.average_rate or 25)
                self.frames = int(stream.frames or 0)
        except (av.error.FFmpegError, IndexError, OSError) as error:
            raise DataError(f"{path}: is no readable video ({error})") from None

    def __iter__(self) -> Iterator[Picture]:
        """(H, W, 3) uint8 RGB, decoded ahead in a thread."""
        return ahead(self._decode(), AHEAD)

    def _decode(self) -> Iterator[Picture]:
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for frame in container.decode(stream):
                    turns = round(getattr(frame, "rotation", 0) / 90) % 4
                    yield np.ascontiguousarray(np.rot90(frame.to_ndarray(format="rgb24"), turns))
        except av.error.FFmpegError as error:
            raise DataError(f"{self.path}: breaks off ({error})") from None


def camera(number: int) -> Iterator[Picture]:
    """Frames of a camera until it stops or the user does.

    Raises:
        DataError: there is no such camera.
    """
    capture = cv2.VideoCapture(number)
    try:
        if not capture.isOpened():
            raise DataError(f"camera {number}: cannot be opened")
        while True:
            there, frame = capture.read()
            if not there:
                return
            yield np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)
    finally:
        capture.release()


class VideoWriter:
    """Writes H.264 (yuv420p, index in front) frame by frame; odd sizes get one more row or column.

    Args:
        path: an .mp4 file.
        rate: frames a second.

    Raises:
        DataError: the file cannot be made; :meth:`write` and :meth:`close` say so too when the disk is full.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self.path, self.rate = path, rate
        self.count = 0
        self._stream: Any = None
        with self._naming():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(path), "w", options={"movflags": "faststart"})

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, picture: Picture) -> None:
        """Append one (H, W, 3) uint8 RGB frame."""
        height, width = picture.shape[:2]
        even = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        if self._stream is None:
            self._stream = self._container.add_stream(
                "libx264", rate=self.rate, options={"crf": "20", "preset": "veryfast"}
            )
            self._stream.height, self._stream.width = even.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        yuv = cv2.cvtColor(even, cv2.COLOR_RGB2YUV_I420)  # in a third of swscale's time
        self._mux(av.VideoFrame.from_ndarray(np.asarray(yuv, np.uint8), format="yuv420p"))
        self.count += 1

    def close(self) -> None:
        """Finish the file; what was written so far plays."""
        try:
            if self._stream is not None:
                self._mux(None)
        finally:
            with self._naming():
                self._container.close()

    def _mux(self, frame: av.VideoFrame | None) -> None:
        """Write what the encoder gives out after one more frame, after the last one (None) all that it holds back."""
        stream, self._stream = self._stream, None
        with self._naming():
            for packet in stream.encode(frame):
                self._container.mux(packet)
        self._stream = stream  # a stream that could not be written is gone: FFmpeg crashes when it is tried again

    @contextlib.contextmanager
    def _naming(self) -> Iterator[None]:
        """What goes wrong in writing as one line with the file's name."""
        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or error
            raise DataError(f"{self.path}: cannot be written ({reason}); make room or choose another --out") from None


def ahead(items: Iterable[T], depth: int) -> Iterator[T]:
    """The same items, fetched ahead by a thread; its error arrives where the items are taken."""
    ready: queue.Queue[tuple[bool, Any]] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: tuple[bool, Any]) -> bool:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def fetch() -> None:
        try:
            for item in items:
                if not put((True, item)):
                    return
            put((False, None))
        except BaseException as error:  # handed over, raised where it can be dealt with
            put((False, error))

    threading.Thread(target=fetch, daemon=True).start()
    try:
        while True:
            more, item = ready.get()
            if not more:
                if item is not None:
                    raise item
                return
            yield item
    finally:
        stopped.set()


class Behind(Generic[T]):
    """Calls a function with one item after the other in a thread, while the caller goes on; its error comes up there.

    Args:
        work: the function.
        depth: so many items may wait before :meth:`put` does.
    """

    def __init__(self, work: Callable[[T], object], depth: int) -> None:
        self._work = work
        self._waiting: queue.Queue[T | None] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand an item over; raises what an earlier one has raised."""
        self._raise()
        self._waiting.put(item)

    def __enter__(self) -> Behind[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self._waiting.put(None)
            self._thread.join()
        except BaseException:  # Ctrl-C: what waits is dropped, but the thread is done before what it works on is closed
            self._dropping = True
            self._thread.join()
            raise
        if kind is None:
            self._raise()

    def _run(self) -> None:
        while True:
            try:
                item = self._waiting.get(timeout=0.1)
            except queue.Empty:
                if self._dropping:
                    return
                continue
            if item is None:
                return
            if self._error is None and not self._dropping:
                try:
                    self._work(item)
                except BaseException as error:  # raised where it can be dealt with
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
