"""Report of a finished run in its output directory: ``report.html``, ``curves.png`` and images in ``samples``."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from pycocotools import mask as coco_mask

from tldet.engine.logging import LOG_NAME, read_log
from tldet.evaluation.columns import GroundTruth, Results
from tldet.evaluation.errors.analysis import Analysis, analyze
from tldet.structures.detections import Detections
from tldet.system.output import write_bytes
from tldet.transfer.provenance import checkpoint_outline
from tldet.visualize.drawing import draw
from tldet.visualize.page.document import Section
from tldet.visualize.page.images import jpeg
from tldet.visualize.page.plots import png
from tldet.workflows.report.command import make_detector_report
from tldet.workflows.report.report import Report
from tldet.workflows.report.request import ReportRequest
from tldet.workflows.report.run import run_sections, training_plots
from tldet.workflows.report.source import DetectionSource, dataset_reader, of_checkpoint
from tldet.workflows.report.write import write_report_page
from tldet.workflows.training.validation import Validation

if TYPE_CHECKING:
    from rich.console import Console

    from tldet.engine.trainer import Trainer

log = logging.getLogger(__name__)
REPORT_NAME, CURVES_NAME, SAMPLES_NAME = "report.html", "curves.png", "samples"
_MOST, MOST_IMAGES = 500_000, 50_000  # largest numbers of detections and images of a report with metrics
_SECONDS = 60.0  # if the last validation took longer, the best weights are not evaluated again
_IMAGES, _SAMPLES = 24, 8
_QUALITY = 90  # JPEG quality of samples
_LONGEST = 60  # characters of the file name of a sample


class BestDetections:
    """Hook that keeps the detections of the best validation of a run.

    Args:
        validation: the validation of the run; one of a classifier, or None, has no detections.

    Attributes:
        columns: ground truth and detections of the best validation; for a mask detector, those of masks and then those
            of boxes. None if this process did not run the best validation, or if there are too many detections or
            images.
        too_many: there are too many detections or images to keep.
        first_step: step at which this process started.
    """

    def __init__(self, validation: object | None = None) -> None:
        self.validation = validation if isinstance(validation, Validation) else None
        self.columns: list[tuple[GroundTruth, Results]] | None = None
        self.too_many = False
        self.first_step = 0

    def before_train(self, runner: Trainer) -> None:
        """Record the step at which this process starts."""
        self.first_step = runner.state.step

    def after_val(self, runner: Trainer) -> None:
        """Keep the detections if this is the best validation so far, or if no validation is the best yet."""
        if self.validation is None or not runner.world.main or runner.state.best_step not in (None, runner.state.step):
            return
        columns = [one.added() for one in self.validation.evaluators]
        self.too_many = len(columns[0][1]) > _MOST or len(columns[0][0].image_ids) > MOST_IMAGES
        self.columns = None if self.too_many else columns

    def source(self, folder: Path, checkpoint: Path | None) -> DetectionSource | None:
        """Return the kept detections as the source of a report; None if there are none."""
        if self.columns is None or self.validation is None:
            return None
        truth, results = self.columns[0]
        boxes = self.columns[1] if len(self.columns) > 1 else None
        return DetectionSource(
            str(folder),
            truth,
            results,
            dataset_reader(truth, self.validation.dataset),
            checkpoint,
            folder,
            boxes,
            "val",
        )


def write_run_report(folder: Path, checkpoint: Path | None, best: BestDetections, console: Console | None) -> None:
    """Write the report of a finished run, with the detections of its best validation; log a warning if this fails.

    Args:
        folder: folder of the run.
        checkpoint: its best checkpoint.
        best: detections of the best validation.
        console: prints the path and the time.

    Raises:
        KeyboardInterrupt: a signal ended the report; training is complete.
    """
    start, path = time.perf_counter(), folder / REPORT_NAME
    unchanged = best.columns is None and not best.too_many and path.is_file()
    if unchanged and _last_step(folder) <= best.first_step:
        return
    try:
        _write(folder, checkpoint, best)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"training is complete and saved in {folder}; the report was not written") from None
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        log.warning(
            "%s: the report is incomplete (%s); training is complete; run `tldet report` to write it", folder, reason
        )
        log.debug("report", exc_info=True)
        return
    if console is not None:
        console.print(f"report: {path} ({time.perf_counter() - start:.1f} s)", markup=False, highlight=False)


def _last_step(folder: Path) -> int:
    return max((record["step"] for record in read_log(folder / LOG_NAME)), default=0)


def _write(folder: Path, checkpoint: Path | None, best: BestDetections) -> None:
    plots = training_plots(read_log(folder / LOG_NAME))
    if plots:
        write_bytes(folder / CURVES_NAME, png(*plots), sync=False)
    source = best.source(folder, checkpoint)
    text = f"Too many detections or images; run `tldet report {folder}`." if best.too_many else ""
    if source is None and not best.too_many:
        source, text = _evaluated(folder, checkpoint)
    if source is None:
        sections = [*([Section("Summary", [text])] if text else []), *run_sections(checkpoint, folder)]
        write_report_page(Report(f"Report on {folder}", str(checkpoint or ""), {}, sections), folder / REPORT_NAME)
        return
    found = analyze(source.truth, source.results)
    write_report_page(make_detector_report(source, found, _IMAGES), folder / REPORT_NAME)
    _write_samples(folder / SAMPLES_NAME, source, found)


def _evaluated(folder: Path, checkpoint: Path | None) -> tuple[DetectionSource | None, str]:
    """Evaluate the best weights of a resumed run again if this is fast; otherwise return an explanation."""
    trained = {} if checkpoint is None else checkpoint_outline(checkpoint)["meta"]["trained"]
    if not trained.get("result"):
        return None, ""  # no validation of a detector
    validations = [record for record in read_log(folder / LOG_NAME) if record["type"] == "val"]
    if not validations or validations[-1]["time"].get("evaluation_seconds", 0.0) > _SECONDS:
        return None, f"The best weights were evaluated before the run was resumed; run `tldet report {folder}`."
    request = ReportRequest(checkpoint, split="val", precision=trained["precision"])
    return of_checkpoint(folder, request), ""


def _write_samples(folder: Path, source: DetectionSource, found: Analysis) -> None:
    """Draw the detections at or above the score threshold on evenly spaced validation images."""
    count = len(source.truth.image_ids)
    for rank in np.unique(np.linspace(0, count - 1, min(_SAMPLES, count)).round().astype(int)).tolist():
        pixels = source.read(rank)
        if pixels is not None:
            drawn = draw(pixels, _detections(source, rank, found.threshold))
            write_bytes(folder / _sample_name(source.truth, rank), jpeg(drawn, _QUALITY), sync=False)


def _sample_name(truth: GroundTruth, rank: int) -> str:
    """Return a file name made of the id and the name of an image."""
    name = Path((truth.file_names[rank] if truth.file_names else None) or "").stem
    return re.sub(r"[^\w.-]", "_", f"{truth.image_ids[rank]}_{name}")[:_LONGEST].strip("_") + ".jpg"


def _detections(source: DetectionSource, rank: int, score: float) -> Detections:
    """Return the detections on an image at or above a score."""
    results = source.results
    rows = np.flatnonzero((results.images == rank) & (results.scores >= score))
    chosen = results.take(rows[np.argsort(-results.scores[rows], kind="stable")])
    boxes = chosen.boxes.copy()
    boxes[:, 2:] += boxes[:, :2]
    masks = None
    if chosen.segmentations:
        masks = torch.tensor(coco_mask.decode(list(chosen.segmentations))).permute(2, 0, 1)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(chosen.scores, dtype=torch.float32),
        torch.tensor(chosen.categories),
        masks,
        source.truth.class_names,
    )
