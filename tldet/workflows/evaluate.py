"""``tldet evaluate``: evaluate a COCO results file."""

from __future__ import annotations

from collections.abc import Iterator

from tldet.coco.class_files import read_names
from tldet.evaluation.columns import GroundTruth, Results, restrict_to_classes
from tldet.evaluation.engines import score_results
from tldet.evaluation.loading import load_ground_truth, load_results
from tldet.evaluation.per_image import PerImage, per_image
from tldet.evaluation.protocols.custom import evaluate_custom
from tldet.evaluation.protocols.lvis import evaluate_lvis
from tldet.evaluation.protocols.result import ProtocolResult
from tldet.evaluation.protocols.voc import evaluate_voc
from tldet.evaluation.report import CocoResult
from tldet.system.output import write_text
from tldet.system.output_checks import check_outputs
from tldet.visualize.page.tables import Table
from tldet.workflows.command_requests import EvaluateRequest
from tldet.workflows.requests import takes


@takes(EvaluateRequest)
def evaluate(request: EvaluateRequest) -> CocoResult:
    """Evaluate detections against ground truth.

    Raises:
        DataError: a file cannot be read or written, or a record is invalid; the message names the file or record.
    """
    inputs = [request.gt, request.dt, *request.classes]
    check_outputs([request.json, request.per_image], inputs, overwrite=request.overwrite)
    truth = load_ground_truth(request.gt, request.type, flags=request.voc or request.lvis)
    results = load_results(request.dt, truth)
    chosen = restrict_to_classes(truth, results, read_names(request.classes)) if request.classes else (truth, results)
    result = score_results(truth, results, request.engine)
    result.protocols = dict(_protocols(request, truth, results, chosen))
    images = per_image(*chosen) if request.per_image else None
    try:
        if request.console:
            request.console.print(*result.tables(), sep="\n")
            if images is not None:
                text = f"{request.per_image}: errors per image at score threshold {images.threshold:.2f} and IoU 0.5"
                request.console.print(text, markup=False, highlight=False)
    finally:  # write the files even if standard output fails
        if images is not None:
            assert request.per_image is not None
            write_text(request.per_image, _image_table(images).csv())
        if request.json:
            result.save(request.json)
    return result


def _protocols(
    request: EvaluateRequest, truth: GroundTruth, results: Results, chosen: tuple[GroundTruth, Results]
) -> Iterator[tuple[str, ProtocolResult]]:
    """Yield name and result of each requested protocol other than COCO.

    Args:
        request: the request.
        truth: ground truth of all classes.
        results: detections of all classes.
        chosen: ground truth and detections of the selected classes.
    """
    if request.iou or request.max_dets or request.classes:
        ious, max_dets = sorted(set(request.iou)), sorted(set(request.max_dets))
        selected = bool(request.classes)
        yield "custom", evaluate_custom(*chosen, request.engine, ious=ious, max_dets=max_dets, selected=selected)
    if request.voc:
        yield "voc", evaluate_voc(truth, results)
    if request.lvis:
        yield "lvis", evaluate_lvis(request.gt, truth, results)


def _image_table(found: PerImage) -> Table:
    """Return the counts of each image as a table."""
    counts = (found.objects, found.detections, found.true_positives, found.false_positives, found.misses, found.f1)
    columns = ("objects", "detections", "true_positives", "false_positives", "misses", "F1")
    values = zip(found.image_ids, found.file_names, *(one.tolist() for one in counts), strict=True)
    rows = [[*row, found.threshold] for row in values]
    return Table("images", "Errors of each image", ("image_id", "file_name", *columns, "score_threshold"), rows)
