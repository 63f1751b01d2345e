"""COCO metrics with user-specified IoU thresholds, limits of detections, or classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Results, drop_unlabeled
from tldet.evaluation.engines import Engine, precision_recall
from tldet.evaluation.protocols.result import ProtocolResult
from tldet.evaluation.report import mean_defined
from tldet.evaluation.resample import IOUS

_SIZES = ("s", "m", "l")  # area ranges 1 to 3
_LISTED = 3  # evenly spaced thresholds are written as a range if there are more


def evaluate_custom(
    truth: GroundTruth,
    results: Results,
    engine: Engine = "fast",
    *,
    ious: Sequence[float] = (),
    max_dets: Sequence[int] = (),
    selected: bool = False,
) -> ProtocolResult:
    """Compute COCO metrics with other parameters.

    The names of the metrics contain the parameters, such as ``AP@[IoU=0.50|maxDets=1000]``.

    Args:
        truth: ground truth.
        results: detections.
        engine: "fast" or "pycocotools".
        ious: IoU thresholds; COCO's by default.
        max_dets: one or three limits of detections per class and image, ascending; AP uses the last one. COCO's 1, 10
            and 100 by default.
        selected: the classes are a subset of those of the dataset; their number is then part of the names.
    """
    ious, max_dets = list(ious) or IOUS.tolist(), list(max_dets) or [1, 10, 100]
    classes = f"|classes={len(truth.class_names)}" if selected else ""
    truth, results = drop_unlabeled(truth, results)
    if truth.image_ids and truth.category_ids:
        precision, recall = precision_recall(truth, results, engine, iouThrs=ious, maxDets=max_dets)
    else:
        precision = -np.ones((len(ious), 1, len(truth.class_names), 4, len(max_dets)))
        recall = precision[:, 0]

    def name(metric: str, chosen: Sequence[float], most: int) -> str:
        return f"{metric}@[IoU={iou_text(chosen)}|maxDets={most}{classes}]"

    values = _metrics(precision, recall, ious, max_dets)
    metrics = {name(metric, chosen, most): mean_defined(one) for metric, chosen, most, one in values}
    ap = {one: mean_defined(precision[:, :, k, 0, -1]) for k, one in enumerate(truth.class_names)}
    title = next(iter(metrics))
    settings = {"iou_thresholds": ious, "max_dets": max_dets, "classes": list(truth.class_names)}
    return ProtocolResult(f"COCO's algorithm, {title.partition('@')[2]}", metrics, title, ap, settings)


def _metrics(
    precision: Floats, recall: Floats, ious: Sequence[float], max_dets: Sequence[int]
) -> Iterator[tuple[str, Sequence[float], int, Floats]]:
    """Yield the short name, IoU thresholds, limit of detections and values to average of each metric."""
    most = max_dets[-1]
    yield "AP", ious, most, precision[:, :, :, 0, -1]
    if len(ious) > 1:
        for level, iou in enumerate(ious):
            yield "AP", [iou], most, precision[level, :, :, 0, -1]
    for size, letter in enumerate(_SIZES, 1):
        yield f"AP{letter}", ious, most, precision[:, :, :, size, -1]
    for column, count in enumerate(max_dets):
        yield "AR", ious, count, recall[:, :, 0, column]
    for size, letter in enumerate(_SIZES, 1):
        yield f"AR{letter}", ious, most, recall[:, :, size, -1]


def iou_text(ious: Sequence[float]) -> str:
    """Return ``0.50:0.95:0.05`` (first, last and step) for evenly spaced thresholds, else all of them."""
    texts = [f"{iou:.2f}" if abs(round(iou, 2) - iou) < 1e-12 else f"{iou:.12g}" for iou in ious]
    steps = np.diff(ious)
    if len(ious) > _LISTED and np.allclose(steps, steps[0], atol=1e-9):
        return f"{texts[0]}:{texts[-1]}:{round(float(steps[0]), 9):g}"
    return ",".join(texts)
