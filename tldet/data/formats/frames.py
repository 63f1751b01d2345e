"""Frames of videos as images: annotations name them by the video and a number, or by a number alone."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np

from tldet.coco.names import fold
from tldet.errors import DataError
from tldet.system.output import write_bytes
from tldet.text import counted

_NUMBER = re.compile(r"[\W_]*(?:frame)?[\W_]*(\d{1,9})", re.IGNORECASE)
_PNG = [cv2.IMWRITE_PNG_COMPRESSION, 1]


class Frames:
    """Images for the frames that annotations name; frames are counted from 0.

    ``clip_000012.jpg``, ``clip/frame_000012.png`` and ``clip/12`` are frame 12 of ``clip.mp4``. If there is only one
    video, ``frame_000012`` and ``000012.jpg`` are its frame 12 too.

    Args:
        videos: the videos.
        folder: folder of the images, which are lossless; an image that exists is not written again.
    """

    def __init__(self, videos: Sequence[Path], folder: Path) -> None:
        self.folder = folder
        self._videos = [_Video(path) for path in videos]

    def find(self, name: str, near: Path) -> Path | None:
        """Return the image of a frame; None if the name is not that of a frame.

        Raises:
            DataError: the video has no such frame, or cannot be read.
        """
        path = PurePosixPath(name)
        for video in self._videos:
            number = _number(path, video.path, alone=len(self._videos) == 1)
            if number is not None:
                image = self.folder / video.path.stem / f"{number:06d}.png"
                if not image.is_file():
                    write_bytes(image, video.png(number, near), sync=False)
                return image
        return None


def _number(name: PurePosixPath, video: Path, *, alone: bool) -> int | None:
    stem, prefix = fold(name.name.split(".")[0] if name.suffix else name.name), fold(video.stem)
    rest = [stem[len(prefix) :]] if stem.startswith(prefix) else []
    if alone or fold(name.parent.name) in (prefix, fold(video.name)):
        rest.append(stem)
    found = next((match for one in rest if (match := _NUMBER.fullmatch(one))), None)
    return None if found is None else int(found[1])


class _Video:
    """A video that is decoded forward; a request for an earlier frame restarts decoding."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._frames: Iterator[Any] = iter(())
        self._next = -1  # number of the next frame; -1 before the first one is decoded

    def png(self, number: int, near: Path) -> bytes:
        """Return a frame as PNG."""
        if self._next < 0 or number < self._next:
            self._frames, self._next = self._decoded(), 0
        for frame in self._frames:
            self._next += 1
            if self._next > number:
                pixels = np.asarray(frame.to_ndarray(format="bgr24"))
                return bytes(cv2.imencode(".png", pixels, _PNG)[1].tobytes())
        raise DataError(
            f"{near}: names frame {number} of {self.path}, which has {counted(self._next, 'frame')}, counted from 0"
        )

    def _decoded(self) -> Iterator[Any]:
        import av

        options = {"protocol_whitelist": "file"}
        try:
            with av.open(f"file:{self.path}", container_options=options, metadata_errors="replace") as container:
                if not container.streams.video:
                    raise DataError(f"{self.path}: is not a readable video (no video stream)")
                yield from container.decode(container.streams.video[0])
        except (av.error.FFmpegError, OSError, ValueError) as error:
            raise DataError(f"{self.path}: is not a readable video ({error})") from None
