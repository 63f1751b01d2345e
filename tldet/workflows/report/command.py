"""``tldet report``: error analysis of a detector as an HTML report."""

from __future__ import annotations

import logging

from tldet.evaluation.columns import GroundTruth, Results
from tldet.evaluation.engines import score_results
from tldet.evaluation.errors.analysis import Analysis, analyze
from tldet.evaluation.report import defined
from tldet.system.output import write_json
from tldet.system.output_checks import check_outputs
from tldet.visualize.page.document import Section
from tldet.visualize.page.tables import Table
from tldet.workflows.report.images import images_section
from tldet.workflows.report.report import Report
from tldet.workflows.report.request import WORST, ReportOptions, ReportRequest
from tldet.workflows.report.run import run_sections
from tldet.workflows.report.sections import METRIC_MEANINGS, accuracy_sections, subtitle
from tldet.workflows.report.source import DetectionSource, of_checkpoint, of_results
from tldet.workflows.report.write import write_files, write_report_page
from tldet.workflows.requests import takes

log = logging.getLogger(__name__)


@takes(ReportRequest)
def report(request: ReportRequest) -> Report:
    """Analyze the errors of a detector and write an HTML report: metrics, curves, errors, calibration and images.

    Raises:
        TldetError: a checkpoint, an annotation file or a results file is invalid, or an output cannot be written.
    """
    request = request.on_validation()
    inputs: list[object] = [request.checkpoint, request.gt, request.dt, request.data]
    copies = dict.fromkeys([request.save_thresholds, request.save_temperature])  # may be the same file
    files = [request.out, request.json, *copies]
    check_outputs(files, inputs, overwrite=request.overwrite, folders=[request.tables])
    if request.dt is not None:
        source = of_results(request.dt, request)
    else:
        assert request.checkpoint is not None
        source = of_checkpoint(request.checkpoint, request)
    found = analyze(source.truth, source.results)
    made = make_detector_report(source, found)
    _save(request, source, found)
    write(made, request)
    if request.console:
        request.console.print(*_lines(made, source, found, request), sep="\n", markup=False, highlight=False)
    return made


def make_detector_report(source: DetectionSource, found: Analysis, images: int = WORST) -> Report:
    """Return the report on one detector.

    Args:
        source: the detections.
        found: their analysis.
        images: largest number of images in the gallery.
    """
    about = run_sections(source.checkpoint, source.run)
    sections = [*accuracy_sections(found), images_section(found, source.read, images), *about]
    if source.boxes is not None:
        sections.insert(1, _boxes_section(source.boxes))
    best = found.overall.at(found.threshold)
    summary = {
        **{name: None if value < 0 else value for name, value in found.coco.numbers().items()},
        "AP_low": found.interval.low,
        "AP_high": found.interval.high,
        "score_threshold": found.threshold,
        **dict(zip(("precision", "recall", "F1"), best, strict=True)),
        "temperature": found.temperature,
        **{f"tide_{name}": value for name, value in found.tide.overall.items()},
    }
    return Report(f"Report on {source.name}", subtitle(source.name, found, source.split), summary, sections)


def write(made: Report, request: ReportOptions) -> None:
    """Write the HTML report, and the JSON file and tables if requested.

    Raises:
        OutputError: a file cannot be written.
    """
    write_report_page(made, request.out)
    if request.json:
        write_json(request.json, made.to_dict())
    if request.tables:
        write_files(made, request.tables)


def _save(request: ReportRequest, source: DetectionSource, found: Analysis) -> None:
    """Write the checkpoints with thresholds and temperature."""
    if not request.save_thresholds and not request.save_temperature:
        return
    from tldet.workflows.report.stored import save_scores

    if source.split == "test":
        log.warning(
            "thresholds and temperature are chosen on the test split, so that test metrics are no longer unbiased"
        )
    save_scores(request, source, found)


def _boxes_section(boxes: tuple[GroundTruth, Results]) -> Section:
    """Return the metrics of the boxes of a detector with masks."""
    coco = score_results(*boxes)
    rows = [[name, defined(value), METRIC_MEANINGS[name]] for name, value in coco.numbers().items()]
    table = Table("boxes", "COCO metrics of the boxes", ("metric", "value", "meaning"), rows)
    text = "All other sections evaluate masks. Use --type bbox for a report on the boxes."
    return Section("Boxes", [text], [table])


def _lines(made: Report, source: DetectionSource, found: Analysis, request: ReportRequest) -> list[str]:
    """Return the lines on the console."""
    ends = f" ({found.interval.ends()})" if found.interval.low is not None else ""
    lost = ", ".join(f"{name} {value:.3f}" for name, value in found.tide.overall.items() if name not in ("FP", "FN"))
    precision, recall, f1 = found.overall.at(found.threshold)
    where = f"the {source.split} split" if source.split else "these images"
    both = (("thresholds", request.save_thresholds), ("temperature", request.save_temperature))
    stored = [f"{name} of {where} stored in {path}" for name, path in both if path]
    return [
        f"{made.subtitle}",
        f"AP {found.coco.AP:.3f}{ends}, AP50 {found.coco.AP50:.3f}",
        f"best score threshold {found.threshold:.2f}: precision {precision:.3f}, recall {recall:.3f}, F1 {f1:.3f}",
        f"AP50 lost: {lost}",
        *stored,
        f"saved to {request.out}",
    ]
