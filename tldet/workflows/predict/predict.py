"""``tldet predict``: run a detector on images, videos and cameras."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.data.images import MAX_PIXELS, Reduced, read_image, several_frames
from tldet.errors import DataError
from tldet.inference.loading import load
from tldet.inference.predictor import Predictor
from tldet.inference.sources import InputSource, find_sources, read_ahead
from tldet.inference.threads import grouped
from tldet.inference.video import STANDARD, Frame, Video, camera
from tldet.inference.writer import drawn_video
from tldet.system.signals import Interrupts
from tldet.text import counted
from tldet.visualize.drawing import draw
from tldet.visualize.labels import without_font
from tldet.workflows.predict.numbering import Numbering
from tldet.workflows.predict.outputs import OutputPaths, write_image
from tldet.workflows.predict.request import PredictRequest
from tldet.workflows.predict.results import ResultsWriter
from tldet.workflows.predict.summary import Summary
from tldet.workflows.requests import takes

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

log = logging.getLogger(__name__)
VIDEO_BATCH = 4  # frames; a fifth faster than single frames
STOPPING = "stopping after the current images and writing the results; Ctrl-C again stops at once"


@takes(PredictRequest)
def predict(request: PredictRequest) -> Summary:
    """Run a detector on images, videos and cameras.

    Inputs that cannot be read are logged, counted and skipped; an output that cannot be written ends the run. A signal
    (Ctrl-C, SIGTERM) ends the run after the current images; videos and results then contain what was predicted so far.

    Raises:
        TldetError: the checkpoint is invalid, an input does not exist, no input can be read, or an output exists
            already or cannot be written.
        KeyboardInterrupt: after a signal, when the results so far are written; the message names them.
    """
    sources, skipped = find_sources(request.given_inputs)
    paths = OutputPaths.of(request)
    numbering = _checked(request, paths, sources)
    predictor = _loaded(request)
    if numbering:
        numbering.take_classes(predictor.class_names)
    if paths.out:
        _report_fonts(predictor.class_names)
    run = _Run(predictor, paths, request.score, request.console, numbering)
    run.summary.skipped = skipped
    if request.on_load:
        request.on_load(predictor)
    run.all(sources)
    if run.summary.failed and not run.summary.images + run.summary.frames:
        raise DataError(f"nothing predicted: {counted(len(run.summary.failed), 'input')} could not be read")
    return run.summary


def _checked(request: PredictRequest, paths: OutputPaths, sources: Sequence[InputSource]) -> Numbering | None:
    """Check the outputs, create their folders and read the annotations."""
    annotations = None if request.annotations is None else Path(request.annotations)
    read = [Path(request.checkpoint), *([annotations] if annotations else [])]
    paths.check(sources, read, overwrite=request.overwrite)
    numbering = Numbering(annotations, sources) if annotations else None
    paths.make_folders()
    return numbering


def _loaded(request: PredictRequest) -> Predictor:
    """Load the detector; log its device and precision."""
    predictor = load(
        request.checkpoint,
        request.device,
        request.precision,
        nms_per_class=request.nms_per_class,
        max_pixels=request.max_pixels or MAX_PIXELS,
    )
    precision = predictor.precision
    log.info(
        "device %s, precision %s (%s); score threshold %s",
        predictor.device,
        precision.name,
        precision.reason,
        predictor.scores.describe() if request.score is None else f"{request.score:g}",
    )
    return predictor


def _report_fonts(class_names: Sequence[str]) -> None:
    """Warn about class names with characters that no installed font has."""
    if names := without_font(class_names):
        log.warning(
            "no installed font has all characters of %s (%s); missing characters are drawn in ASCII (install a font "
            "such as Noto Sans CJK)",
            counted(len(names), "class name"),
            ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""),
        )


class _Run:
    """State of one call of :func:`predict`."""

    def __init__(
        self,
        predictor: Predictor,
        paths: OutputPaths,
        score: float | None,
        console: Console | None,
        numbering: Numbering | None = None,
    ) -> None:
        self.predictor, self.paths, self.score, self.console = predictor, paths, score, console
        self.summary, self.stopped = Summary(), True
        names = predictor.category_ids, predictor.class_names
        self.results = ResultsWriter(paths, *names, numbering, self.summary)
        self.interrupts = Interrupts(lambda: log.warning(STOPPING))

    def all(self, sources: Sequence[InputSource]) -> None:
        """Predict on all inputs and write the results, also after a signal or an error."""
        start = time.perf_counter()
        with self.interrupts:
            try:
                with self.progress() as progress:
                    read = read_ahead(sources, self.predictor.open)
                    for source, image in progress.track(read, len(sources), description="predicting"):
                        self.take(source, image, progress)
                        if self.interrupts.requested:
                            break
                    else:
                        self.stopped = False
            except KeyboardInterrupt:  # a second Ctrl-C
                log.warning("stopped at once")
            finally:
                self.summary.seconds = time.perf_counter() - start
                self._finish()
        if self.stopped:
            raise KeyboardInterrupt(f"stopped after {self.summary.counts()}; {self.results.describe()}")

    def _finish(self) -> None:
        try:
            self.results.write()
        finally:
            if self.summary.several_frames:
                log.warning("%s", several_frames(self.summary.several_frames))
            if self.console:
                text = f"{self.summary.describe()}; {self.results.describe()}"
                self.console.print(text, markup=False, highlight=False)

    def progress(self) -> Progress:
        from rich.progress import Progress

        console = self.console
        shown = console is not None and (console.is_terminal or console.is_jupyter)
        return Progress(console=console, disable=not shown, transient=True)

    def take(self, source: InputSource, image: Reduced | DataError | None, progress: Progress) -> None:
        """Predict on one input, an image already read.

        Raises:
            DataError: an output cannot be written.
        """
        if isinstance(image, DataError):
            self._unreadable(source, image)
        elif image is not None:
            self._image(source, image)
        elif source.kind == "video":
            try:
                video = Video(source.path)
            except DataError as error:
                self._unreadable(source, error)
                return
            shown = progress.track(video, total=video.frames or None, description=source.path.name)
            self._video(source, shown, video.rate, VIDEO_BATCH)
            self._check(source, video)
        else:
            frames = camera(int(str(source.path)))
            self._video(source, frames, STANDARD, 1)  # batches of 1: a live image must not wait for the next one

    def _unreadable(self, source: InputSource, error: DataError) -> None:
        self.summary.failed[str(source.path)] = str(error)
        log.warning("%s", error)

    def _image(self, source: InputSource, image: Reduced) -> None:
        reduced = image.factor > 1 and (self.paths.out or self.paths.crops)
        try:
            pixels = read_image(source.path, self.predictor.limits) if reduced else image.image
        except DataError as error:
            self._unreadable(source, error)
            return
        detections = self.predictor.predict(image, self.score)
        self.results.add(detections, source.path.as_posix(), image.whole)
        self.summary.images += 1
        if image.frames > 1:
            self.summary.several_frames.append(source.path.as_posix())
        self.results.export(detections, source.name.with_suffix(""), pixels, image.whole, source.name.suffix)
        if self.paths.out:
            write_image(self.paths.out / source.name, draw(pixels, detections))

    def _check(self, source: InputSource, video: Video) -> None:
        """Report damage of a video that could still be read, unless the run was stopped."""
        if video.damaged:
            self.summary.damaged[str(source.path)] = video.damaged
        if not self.interrupts.requested and (problems := video.problems()):
            self.summary.incomplete[str(source.path)] = problems
            log.warning("%s: %s", source.path, problems)

    def _video(self, source: InputSource, frames: Iterable[Frame], rate: Fraction, batch: int) -> None:
        numbers = count()
        with drawn_video(self.paths.out and self.paths.out / source.name, rate) as draw_on:
            for group in grouped(self._readable(source, frames), batch):
                images = [frame.image for frame in group]
                for frame, detections in zip(group, self.predictor.predict(images, self.score, batch), strict=True):
                    number, size = next(numbers), (frame.image.shape[0], frame.image.shape[1])
                    self.results.add(detections, f"{source.path.as_posix()}#{number}", size)
                    self.summary.frames += 1
                    name = source.name.with_name(f"{source.name.stem}_{number:06d}")
                    self.results.export(detections, name, frame.image, size, ".jpg")
                    draw_on(frame, detections)
                if self.interrupts.requested:
                    break

    def _readable(self, source: InputSource, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames up to the first one that cannot be read."""
        try:
            yield from frames
        except DataError as error:
            self._unreadable(source, error)
