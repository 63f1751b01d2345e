"""Probable label errors: disagreements of labels and the detections of a detector, most certain first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.ops import box_iou

from tldet.coco.detection_checks import common_classes
from tldet.data.checks.findings import Corners, Finding
from tldet.data.checks.records import Records
from tldet.inference.loading import load
from tldet.inference.predictor import Predictor
from tldet.structures.detections import Detections
from tldet.system.inputs import is_file
from tldet.workflows.check.request import CheckRequest

_Floats = NDArray[np.float64]
_LEAST = 0.05  # score threshold of detections that confirm a label
_MATCH, _LOOSE, _NEAR = 0.5, 0.7, 0.1  # least IoU of a match, of an accurate box, and of a displaced box
_ALONE = 0.6  # score of a label without a detection
_BATCH = 8


@dataclass(frozen=True)
class Predicted:
    """Detections on one image, with the labels (class numbers) of the dataset.

    Attributes:
        boxes: (P, 4) x0, y0, x1, y1.
        scores: (P,).
        labels: (P,).
    """

    boxes: _Floats
    scores: _Floats
    labels: NDArray[np.int64]


def check_labels(
    request: CheckRequest, splits: Sequence[Records], track: Callable[[Sequence[int]], Iterable[int]] = iter
) -> Iterator[Finding]:
    """Yield the probable label errors of all splits, found with the detector of ``--model``.

    Raises:
        TldetError: the checkpoint cannot be used, or shares no class with the dataset.
    """
    predictor = load(str(request.model), request.device)
    for records in splits:
        if records.folder is not None:
            common_classes(records.class_names, predictor.class_names)
            yield from label_errors(records, predictor, request.score, track)


def label_errors(
    records: Records,
    predictor: Predictor,
    least: float,
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
    chosen: Sequence[int] | None = None,
) -> Iterator[Finding]:
    """Yield the probable label errors of some images of a split.

    Args:
        records: the labels.
        predictor: the detector.
        least: score threshold of detections that are reported as missing labels.
        track: wraps the images, to show progress.
        chosen: positions of the images; None for all.
    """
    label_of = {name: label for label, name in enumerate(records.class_names)}
    labels = np.array([label_of.get(name, -1) for name in predictor.class_names], np.int64)
    paths = records.paths
    positions = [position for position in (range(len(paths)) if chosen is None else chosen) if is_file(paths[position])]
    known = np.isin(np.arange(len(records.class_names)), labels)
    objects = records.rows_by_image()
    for start in track(range(0, len(positions), _BATCH)):
        group = positions[start : start + _BATCH]
        found = predictor.predict([paths[position] for position in group], _LEAST, _BATCH, on_error="skip")
        for position, detections in zip(group, found, strict=True):
            if detections is not None:
                yield from compare_labels(
                    records, position, objects[position], _predicted(detections, labels), known, least
                )


def _predicted(detections: Detections, labels: NDArray[np.int64]) -> Predicted:
    mapped = labels[detections.labels.numpy()] if len(labels) else np.zeros(0, np.int64)
    kept = mapped >= 0
    boxes, scores = detections.boxes.double().numpy(), detections.scores.double().numpy()
    return Predicted(boxes[kept], scores[kept], mapped[kept])


def compare_labels(
    records: Records,
    position: int,
    rows: NDArray[np.int64],
    found: Predicted,
    known: NDArray[np.bool_],
    least: float,
) -> Iterator[Finding]:
    """Yield the probable label errors of one image.

    Args:
        records: the labels.
        position: the image.
        rows: its objects.
        found: the detections.
        known: (K,) bool, True for classes of the detector.
        least: score threshold of detections that are reported as missing labels.
    """
    rows = rows[(records.boxes[rows, 2:] > 0).all(1)]
    crowd, rows = rows[records.crowd[rows]], rows[~records.crowd[rows]]
    iou = _iou(_corners(records, rows), found.boxes)
    free = iou.max(0, initial=0) < _MATCH
    inside = _iou(_corners(records, crowd), found.boxes, of_second=True)
    free &= inside.max(0, initial=0) < _MATCH
    for row, overlap in zip(rows.tolist(), iou, strict=True):
        if known[records.labels[row]]:
            finding = _of_label(records, row, found, overlap, free)
            yield from [] if finding is None else [finding]
    yield from _missing(records, position, found, free & (found.scores >= least))


def _of_label(
    records: Records, row: int, found: Predicted, overlap: _Floats, free: NDArray[np.bool_]
) -> Finding | None:
    """Return the probable error of a label, or None; a displaced detection is removed from ``free``.

    ``free`` is (P,) bool, True for detections that match no label.
    """
    own, near = found.labels == records.labels[row], overlap >= _MATCH
    support = float((found.scores * (own & near)).max(initial=0))
    other = found.scores * (~own & near)
    if other.max(initial=0) > support:
        return _of_class(records, row, found, int(other.argmax()), support)
    if support:
        best = int((found.scores * (own & near)).argmax())
        return _loose(records, row, found, best, overlap) if overlap[best] < _LOOSE else None
    moved = found.scores * (own & free & (overlap >= _NEAR))
    if moved.max(initial=0) > 0:
        best = int(moved.argmax())
        free[best] = False
        return _loose(records, row, found, best, overlap)
    text = f"no detection matches this {_name(records, row)!r}"
    return records.of_object("label-spurious", row, text, fix="check box and class", score=_ALONE)


def _of_class(records: Records, row: int, found: Predicted, best: int, support: float) -> Finding:
    name, score = records.class_names[int(found.labels[best])], float(found.scores[best])
    text = f"labeled {_name(records, row)!r}, detected as {name!r} with score {score:.2f}"
    return records.of_object("label-class", row, text, fix="check the class", score=score - support)


def _loose(records: Records, row: int, found: Predicted, best: int, overlap: _Floats) -> Finding:
    """Return the finding about a label whose box differs from the detection; its score falls as the IoU grows."""
    box, score = [round(value) for value in found.boxes[best].tolist()], float(found.scores[best])
    text = f"IoU {overlap[best]:.2f} with the detected {_name(records, row)!r} at {box} (score {score:.2f})"
    rank = score * min(1.0, float(1 - overlap[best]) / (1 - _MATCH))
    return records.of_object("label-loose", row, text, fix="check the box", score=rank)


def _missing(records: Records, position: int, found: Predicted, rows: NDArray[np.bool_]) -> Iterator[Finding]:
    for row in np.flatnonzero(rows).tolist():
        name, score = records.class_names[int(found.labels[row])], float(found.scores[row])
        x0, y0, x1, y1 = found.boxes[row].tolist()
        box: Corners = (x0, y0, x1, y1)
        text = f"detected {name!r} with score {score:.2f} has no label"
        yield records.of_image("label-missing", position, text, fix="add a label", box=box, score=score)


def _name(records: Records, row: int) -> str:
    return records.class_names[int(records.labels[row])]


def _corners(records: Records, rows: NDArray[np.int64]) -> _Floats:
    boxes = records.boxes[rows]
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def _iou(one: _Floats, two: _Floats, *, of_second: bool = False) -> _Floats:
    """Return (N, M) IoU, or with ``of_second`` the fraction of each second box inside each first box."""
    if not of_second:
        return np.asarray(box_iou(torch.from_numpy(one), torch.from_numpy(two)).numpy())
    low, high = np.maximum(one[:, None, :2], two[None, :, :2]), np.minimum(one[:, None, 2:], two[None, :, 2:])
    inside = np.maximum(high - low, 0).prod(2)
    return np.asarray(inside / np.maximum((two[:, 2:] - two[:, :2]).prod(1), 1e-9)[None])
