"""``tldet predict``: a detector on pictures and video, from files to files."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import cv2

from tldet.data.images import Picture, Reduced, read_image
from tldet.engine.memory import give_back_memory, keep_freed_memory
from tldet.errors import DataError
from tldet.inference.numbering import Numbering
from tldet.inference.predictor import Predictor, load
from tldet.inference.sources import Source, find_sources
from tldet.inference.threads import AHEAD, Behind, ahead
from tldet.inference.video import STANDARD, Frame, Video, camera
from tldet.inference.writer import VideoWriter
from tldet.labels import without_font
from tldet.output import make_folder, write_bytes, write_json
from tldet.structures import Detections
from tldet.visualize import draw

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)
T = TypeVar("T")
PICTURES_AHEAD = 2  # each may take 100 MB
TOGETHER = 4  # frames of a film predicted at once, in four fifths of the time


@dataclass
class Summary:
    """What was done.

    Attributes:
        pictures: number of images.
        frames: number of frames of videos and cameras.
        detections: number of all detections.
        failed: reason of each failed input, by path.
        skipped: number of skipped files and folders inside the inputs, by reason.
        damaged: number of packets that could not be decoded, by video path.
        seconds: total time.
        records: COCO results with ``file_name`` and ``category_name``. Without ``annotations``, ``image_id`` counts
            images and frames from 1, and ``file_name`` is the path (with ``#frame`` for videos).
    """

    pictures: int = 0
    frames: int = 0
    detections: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    records: list[dict[str, Any]] = field(default_factory=list)


def predict(
    checkpoint: str | Path,
    inputs: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    json_path: str | Path | None = None,
    annotations: str | Path | None = None,
    score: float = 0.3,
    device: str = "auto",
    precision: str = "auto",
    nms_per_class: bool | None = None,
    console: Console | None = None,
) -> Summary:
    """Run a detector on images, videos and cameras.

    Inputs that cannot be read are logged, counted and skipped; an output that cannot be written ends the run.

    Args:
        checkpoint: a tldet checkpoint.
        inputs: images, folders, globs, videos or a camera number.
        out: output directory of images (under their own names) and videos with drawn detections.
        json_path: output file of the COCO results.
        annotations: COCO JSON of the input images; the results take image ids, file names and category ids from it.
        score: score threshold.
        device: ``auto``, ``cpu``, ``cuda``, ...
        precision: ``auto`` (measured), ``fp32``, ``bf16`` or ``fp16``.
        nms_per_class: apply NMS per class (True) or across classes (False); None keeps the checkpoint's setting.
        console: shows progress and a summary.

    Raises:
        TldetError: the checkpoint is invalid, an input does not exist, no input can be read, or an output cannot be
            written.
    """
    keep_freed_memory()
    sources, skipped = find_sources([str(given) for given in inputs])
    if out:
        _spare_inputs(sources, Path(out))
    numbering = Numbering(Path(annotations), sources) if annotations else None
    for folder in (Path(out) if out else None, Path(json_path).parent if json_path else None):
        if folder:
            make_folder(folder)
    predictor = load(checkpoint, device, precision, nms_per_class=nms_per_class)
    if numbering:
        numbering.take_classes(predictor.class_names)
    if out:
        _report_fonts(predictor.class_names)
    run = _Run(predictor, Path(out) if out else None, score, console, numbering)
    run.summary.skipped = skipped
    give_back_memory()
    start = time.perf_counter()
    try:
        with run.progress() as progress:
            for source, picture in progress.track(
                read_ahead(sources, run.predictor), len(sources), description="predicting"
            ):
                run.take(source, picture, progress)
    finally:
        run.summary.seconds = time.perf_counter() - start
        if json_path:
            write_json(json_path, run.summary.records)
        if numbering and numbering.left_out:
            log.warning("%d detections left out: %s does not have their classes", numbering.left_out, annotations)
        run.report()
    if run.summary.failed and not run.summary.pictures + run.summary.frames:
        raise DataError(f"none of {len(run.summary.failed)} inputs could be read")
    return run.summary


def _report_fonts(class_names: Sequence[str]) -> None:
    if names := without_font(class_names):
        log.warning(
            "no installed font has all characters of %d class names (%s), so missing characters are drawn in ASCII; "
            "install a font such as Noto Sans CJK",
            len(names),
            ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""),
        )


class _Run:
    """One call of :func:`predict`."""

    def __init__(
        self,
        predictor: Predictor,
        out: Path | None,
        score: float,
        console: Console | None,
        numbering: Numbering | None = None,
    ) -> None:
        self.predictor, self.out, self.score, self.console = predictor, out, score, console
        self.numbering = numbering
        self.summary = Summary()

    def progress(self) -> Progress:
        from rich.progress import Progress

        return Progress(console=self.console, disable=self.console is None, transient=True)

    def take(self, source: Source, picture: Reduced | DataError | None, progress: Progress) -> None:
        """One input, a picture already read.

        Raises:
            DataError: its drawing cannot be written.
        """
        if isinstance(picture, DataError):
            self._unreadable(source, picture)
        elif picture is not None:
            self._picture(source, picture)
        elif source.kind == "video":
            try:
                video = Video(source.path)
            except DataError as error:
                self._unreadable(source, error)
                return
            shown = progress.track(video, total=video.frames or None, description=source.path.name)
            self._film(source, shown, video.rate, TOGETHER)
            self._check(source, video)
        else:
            shots = camera(int(str(source.path)))
            self._film(source, shots, STANDARD, 1)  # batches of 1: a live image must not wait for the next one

    def _unreadable(self, source: Source, error: DataError) -> None:
        self.summary.failed[str(source.path)] = str(error)
        log.warning("%s", error)

    def _picture(self, source: Source, picture: Reduced) -> None:
        try:
            drawn_on = picture.image if picture.factor == 1 or not self.out else read_image(source.path)
        except DataError as error:
            self._unreadable(source, error)
            return
        found = self.predictor.predict(picture, self.score)
        self._record(found, source.path.as_posix())
        self.summary.pictures += 1
        if self.out:
            write_picture(self.out / source.name, draw(drawn_on, found))

    def _check(self, source: Source, video: Video) -> None:
        """Report damage of a video that could still be read."""
        if video.damaged:
            self.summary.damaged[str(source.path)] = video.damaged
        if problems := video.problems():
            log.warning("%s: %s", source.path, problems)

    def _film(self, source: Source, frames: Iterable[Frame], rate: Fraction, together: int) -> None:
        numbers = count()
        with self._drawing(source, rate) as draw_on:
            for some in grouped(self._readable(source, frames), together):
                images = [frame.image for frame in some]
                for frame, found in zip(some, self.predictor.predict(images, self.score, together), strict=True):
                    self._record(found, f"{source.path.as_posix()}#{next(numbers)}")
                    self.summary.frames += 1
                    draw_on((frame, found))

    @contextmanager
    def _drawing(self, source: Source, rate: Fraction) -> Iterator[Callable[[tuple[Frame, Detections]], None]]:
        """What takes frames and detections and writes them as a film, in a thread of its own; nothing without --out."""
        if self.out is None:
            yield lambda _: None
            return
        with VideoWriter(self.out / source.name, rate) as writer:

            def write(given: tuple[Frame, Detections]) -> None:
                frame, found = given
                writer.write(draw(frame.image, found), frame.start, frame.duration)

            with Behind(write, AHEAD) as drawing:
                yield drawing.put

    def _readable(self, source: Source, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The frames up to where they cannot be read."""
        try:
            yield from frames
        except DataError as error:
            self._unreadable(source, error)

    def _record(self, found: Detections, name: str) -> None:
        self.summary.detections += len(found)
        if self.numbering:
            self.summary.records += self.numbering.records(found, name)
            return
        number = self.summary.pictures + self.summary.frames + 1
        for record, category in zip(found.to_coco(number, self.predictor.category_ids), found.names(), strict=True):
            self.summary.records.append({**record, "file_name": name, "category_name": category})

    def report(self) -> None:
        """The summary in one line, and where the drawings are."""
        s = self.summary
        if self.console is None:
            return
        counts = [f"{s.pictures} pictures"] if s.pictures else []
        counts += [f"{s.frames} frames"] if s.frames else []
        rate = (s.pictures + s.frames) / max(s.seconds, 1e-9)
        failed = f", {len(s.failed)} could not be read" if s.failed else ""
        failed += f", {sum(s.skipped.values())} files skipped" if s.skipped else ""
        failed += f", {sum(s.damaged.values())} damaged packets skipped" if s.damaged else ""
        where = f"; drawn in {self.out}" if self.out and counts else ""
        text = f"{' and '.join(counts) or 'nothing'}: {s.detections} detections, {rate:.1f} a second{failed}{where}"
        self.console.print(text, markup=False, highlight=False)


def grouped(frames: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of ``size`` frames; the last may be shorter."""
    left = iter(frames)
    while some := list(islice(left, size)):
        yield some


def read_ahead(sources: Sequence[Source], predictor: Predictor) -> Iterator[tuple[Source, Reduced | DataError | None]]:
    """Each source with its picture, read by a thread while the detector works on the one before.

    What cannot be read comes as its error, so that the others go on; videos and cameras come with None.
    """

    def one(source: Source) -> tuple[Source, Reduced | DataError | None]:
        if source.kind != "picture":
            return source, None
        try:
            return source, predictor.open(source.path)
        except DataError as error:
            return source, error

    return ahead(map(one, sources), PICTURES_AHEAD)


def write_picture(path: Path, picture: Picture) -> None:
    """Write a (H, W, 3) uint8 RGB picture by its name's extension.

    Raises:
        OutputError: it cannot be written.
    """
    _, encoded = cv2.imencode(path.suffix.lower(), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_bytes(path, encoded.tobytes(), sync=False)


def _spare_inputs(sources: Sequence[Source], out: Path) -> None:
    """No drawing may be written over a picture or video that was given."""
    given = {source.path.resolve() for source in sources}
    clash = next((out / source.name for source in sources if (out / source.name).resolve() in given), None)
    if clash is not None:
        raise DataError(f"{clash}: is an input, a drawing would be written over it; choose another --out")
