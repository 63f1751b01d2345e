"""``tldet predict``: run a detector on images, videos and cameras."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from fractions import Fraction
from itertools import count
from typing import TYPE_CHECKING

from tldet.data.images import several_frames
from tldet.errors import DataError
from tldet.inference.loading import load
from tldet.inference.predictor import Predictor
from tldet.inference.sources import InputSource, find_sources
from tldet.inference.threads import grouped
from tldet.inference.video import STANDARD, Frame, Video, camera
from tldet.inference.writer import drawn_video
from tldet.runtime.images import MAX_PIXELS
from tldet.system.progress import progress_bars
from tldet.system.signals import Interrupts
from tldet.text import counted
from tldet.visualize.labels import without_font
from tldet.workflows.predict.images import ImageRun
from tldet.workflows.predict.plan import PredictPlan, planned
from tldet.workflows.predict.request import PredictRequest
from tldet.workflows.predict.results import MemoryStore, ResultsWriter, Store
from tldet.workflows.predict.summary import Summary
from tldet.workflows.requests import takes

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger(__name__)
VIDEO_BATCH = 4  # frames; a fifth faster than single frames
STOPPING = "stopping after the current images, then writing the results; press Ctrl-C again to stop immediately"


@takes(PredictRequest)
def predict(request: PredictRequest) -> Summary:
    """Run a detector on images, videos and cameras.

    Inputs that cannot be read are logged, counted and skipped; an output that cannot be written stops the run. Ctrl-C
    and SIGTERM stop the run after the current images; all outputs then contain the detections so far.

    Raises:
        TldetError: the checkpoint is invalid, an input does not exist, no input can be read, or an output exists
            already or cannot be written.
        KeyboardInterrupt: after a signal, once the results so far are written; the message names the output files.
    """
    sources, skipped = find_sources(request.given_inputs)
    plan = planned(request, sources)
    with closing(plan.writer) if plan.writer else nullcontext():
        summary = _predicted(request, plan, skipped)
    if summary.failed and not summary.images + summary.frames + summary.resumed:
        raise DataError(f"nothing predicted: {counted(len(summary.failed), 'input')} could not be read")
    return summary


def _predicted(request: PredictRequest, plan: PredictPlan, skipped: Mapping[str, int]) -> Summary:
    predictor = _loaded(request, plan)
    if plan.numbering:
        plan.numbering.take_classes(predictor.class_names)
    if plan.paths.out:
        _report_fonts(predictor.class_names)
    run = _Run(predictor, request, plan)
    run.summary.skipped = dict(skipped)
    if request.on_load:
        request.on_load(predictor)
    run.all(plan.todo)
    return run.summary


def _loaded(request: PredictRequest, plan: PredictPlan) -> Predictor:
    """Load the detector; log its device and precision."""
    predictor = load(
        request.checkpoint,
        plan.device,
        plan.precision,
        nms_per_class=request.nms_per_class,
        max_pixels=request.max_pixels or MAX_PIXELS,
        threads=request.threads,
        tiles=request.tiles,
        overlap=request.overlap,
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
            "no installed font has all characters of %s (%s); missing characters are replaced by ASCII (install a font "
            "such as Noto Sans CJK)",
            counted(len(names), "class name"),
            ", ".join(names[:3]) + (", ..." if len(names) > 3 else ""),
        )


class _Run:
    """State of one call of :func:`predict`."""

    def __init__(self, predictor: Predictor, request: PredictRequest, plan: PredictPlan) -> None:
        self.predictor, self.paths, self.score, self.console = predictor, plan.paths, request.score, request.console
        self.summary, self.stopped = Summary(resumed=plan.resumed), True
        self.batch = request.batch_size
        store: Store = plan.writer or MemoryStore()
        names = predictor.category_ids, predictor.class_names
        self.results = ResultsWriter(plan.paths, plan.sources, *names, plan.numbering, self.summary, store)
        if plan.writer:
            plan.begin(predictor, self.results.categories())
        self.interrupts = Interrupts(lambda: log.warning(STOPPING))

    def all(self, sources: Sequence[InputSource]) -> None:
        """Predict on all inputs and write the results, even after a signal or an error."""
        start = time.perf_counter()
        with self.interrupts:
            try:
                with self.progress() as progress:
                    self._all(sources, progress)
            except KeyboardInterrupt:  # a second Ctrl-C
                log.warning("stopped immediately")
            finally:
                self.summary.seconds = time.perf_counter() - start
                self._finish()
        if self.stopped:
            raise KeyboardInterrupt(f"stopped after {self.summary.counts()}; {self.results.describe()}")

    def _all(self, sources: Sequence[InputSource], progress: Progress) -> None:
        """Predict on the images, then on videos and cameras."""
        task = progress.add_task("predicting", total=len(sources))
        images = [source for source in sources if source.kind == "image"]
        ImageRun(self.predictor, self.results, self.score, self.batch)(
            images, lambda: progress.advance(task), lambda: self.interrupts.requested
        )
        for source in sources:
            if self.interrupts.requested:
                return
            if source.kind != "image":
                self._moving(source, progress)
                progress.advance(task)
        self.stopped = self.interrupts.requested

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
        return progress_bars(self.console)

    def _moving(self, source: InputSource, progress: Progress) -> None:
        """Predict on a video or a camera.

        Raises:
            DataError: an output cannot be written.
        """
        if source.kind == "video":
            try:
                video = Video(source.path)
            except DataError as error:
                self.results.fail(source, error)
                return
            shown = progress.track(video, total=video.frames or None, description=source.path.name)
            self._video(source, shown, video.rate, VIDEO_BATCH)
            self._check(source, video)
        else:
            frames = camera(int(str(source.path)))
            self._video(source, frames, STANDARD, 1)  # batches of 1: a live image must not wait for the next one

    def _check(self, source: InputSource, video: Video) -> None:
        """Log damage of a video that was read to the end, unless the run was stopped."""
        if video.damaged:
            self.summary.damaged[str(source.path)] = video.damaged
        if not self.interrupts.requested and (problems := video.problems()):
            self.summary.incomplete[str(source.path)] = problems
            log.warning("%s: %s", source.path, problems)

    def _video(self, source: InputSource, frames: Iterable[Frame], rate: Fraction, batch: int) -> None:
        numbers = count()
        readable = self._readable(source, frames)
        with drawn_video(self.paths.out and self.paths.out / source.name, rate) as draw_on:
            for group in grouped(readable, batch):
                images = [frame.image for frame in group]
                for frame, detections in zip(group, self.predictor.predict(images, self.score, batch), strict=True):
                    number, size = next(numbers), (frame.image.shape[0], frame.image.shape[1])
                    self.results.export(source, detections, frame.image, size, number)
                    self.results.add(source, detections, size, number)
                    self.summary.frames += 1
                    draw_on(frame, detections)
                if self.interrupts.requested:
                    break
        if not self.interrupts.requested:
            self.results.end_video(source, next(numbers))

    def _readable(self, source: InputSource, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames up to the first one that cannot be read."""
        try:
            yield from frames
        except DataError as error:
            self.results.fail(source, error)
