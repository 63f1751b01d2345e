"""COCO evaluation of results files, and of the detections of a model image by image."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco import checks, detection_checks
from tldet.coco.records import CocoSource
from tldet.errors import DataError
from tldet.evaluation.columns import Floats, GroundTruth, Results, Type, join_results
from tldet.evaluation.engines import Engine, StreamingScorer, score_results
from tldet.evaluation.loading import load_ground_truth, load_results
from tldet.evaluation.report import CocoResult
from tldet.structures import rle
from tldet.text import counted

if TYPE_CHECKING:  # scoring files needs no torch
    from tldet.structures.detections import Detections
    from tldet.structures.target import Target

_logger = logging.getLogger(__name__)


def evaluate_files(
    gt: CocoSource,
    dt: CocoSource,
    *,
    type: Type = "bbox",
    engine: Engine = "fast",
    image_ids: Iterable[int] | None = None,
    agnostic: bool = False,
) -> CocoResult:
    """Score COCO results against COCO annotations.

    Args:
        gt: annotation file, or a dict of the same layout.
        dt: results file, or a list of its records.
        type: evaluate boxes ("bbox") or masks ("segm").
        engine: "fast" (hotcoco) or "pycocotools"; the numbers are equal.
        image_ids: evaluate only these images; None for all images of ``gt``.
        agnostic: ignore classes.

    Raises:
        DataError: a file is invalid; the message names the file and the record.
    """
    truth = load_ground_truth(gt, type)
    results = load_results(dt, truth)
    chosen = truth if image_ids is None else truth.on(image_ids)
    return score_results(chosen, results.on(chosen, truth), engine, agnostic=agnostic)


class CocoEvaluator:
    """Evaluator that collects detections image by image, and evaluates these images.

    Args:
        truth: ground truth of the dataset: of targets (:func:`~tldet.evaluation.targets.ground_truth_of`), or of a COCO
            JSON (:func:`~tldet.evaluation.loading.load_ground_truth`). If it has masks, these are evaluated: the size
            of a detection is that of its mask, as usual for mask AP, and :attr:`results` have no boxes.
        category_ids: the dataset's category id of each label; None for a class that the dataset does not have (its
            detections are left out and counted in the log).
        engine: "fast" (hotcoco) or "pycocotools".

    Raises:
        DataError: the ground truth lacks a category id.
    """

    def __init__(self, truth: GroundTruth, *, category_ids: Sequence[int | None], engine: Engine = "fast") -> None:
        self.truth = truth
        self.engine: Engine = engine
        self.category_ids = list(category_ids)
        known = self.truth.category_rank()
        for key in self.category_ids:
            if key is not None and key not in known and key != self.truth.unused:
                names = checks.shortened(list(known))
                raise DataError(f"{self.truth.name}: has no category id {key} of the model, only {names}")
        self._category_ranks = np.array(
            [-1 if k is None else known.get(k, -1) for k in self.category_ids], dtype=np.int64
        )
        self._image_ranks = self.truth.image_rank()
        self.reset()

    def reset(self) -> None:
        """Remove all detections."""
        self._found: dict[int, Results] = {}
        self._left_out = 0
        self._stream = StreamingScorer(self.truth) if self.engine == "fast" else None

    def update(self, targets: Iterable[Target], detections: Iterable[Detections]) -> None:
        """Add the detections on some images, also if there are none; the fast engine matches them at once.

        Args:
            targets: one per image. Only ``image_id`` is read: objects are those of the ground truth, because targets of
                a batch are in pixels of the resized image.
            detections: one per target, in pixels of the original image.

        Raises:
            DataError: the image is not in the ground truth, or a score or box is not finite.
            ValueError: an image was added before, masks are evaluated and the detections have none, or the numbers of
                targets and detections differ.
        """
        for target, found in list(zip(targets, detections, strict=True)):
            self._add(target.image_id, found)

    def _add(self, image_id: int, detections: Detections) -> None:
        if image_id not in self._image_ranks:
            raise DataError(f"{self.truth.name}: detections of unknown image_id {image_id}")
        if image_id in self._found:
            raise ValueError(f"image {image_id} was added before; call reset() between two evaluations")
        if self.truth.type == "segm" and detections.masks is None and len(detections):
            raise ValueError("masks are evaluated, but the detections have none")
        rank, categories = self._image_ranks[image_id], self._category_ranks[_array(detections.labels)]
        boxes, scores = _xywh(detections), _array(detections.scores).astype(np.float64)
        _check(f"detections of image_id {image_id}: row", boxes, scores)
        areas, rles = boxes[:, 2] * boxes[:, 3], None
        if self.truth.type == "segm":
            rles = detections.rles() or []
            areas, boxes = rle.areas_and_boxes(rles)
        known = np.flatnonzero(categories >= 0)
        found = Results(np.full(len(scores), rank), categories, boxes, scores, areas, rles).take(known)
        self._found[image_id] = found
        self._left_out += len(scores) - len(known)
        if self._stream:
            self._stream.add(rank, found)

    def compute(self) -> CocoResult:
        """Evaluate the images added by :meth:`update`."""
        if self._left_out:
            what = counted(self._left_out, "detection")
            _logger.info("%s left out: %s does not have their classes", what, self.truth.name)
        if self._stream:
            return self._stream.compute()
        return score_results(*self.added(), self.engine)

    def added(self) -> tuple[GroundTruth, Results]:
        """Return the ground truth and the detections of the images added by :meth:`update`."""
        truth = self.truth.on(self._found)
        return truth, self._columns().on(truth, self.truth)

    def _columns(self) -> Results:
        return join_results(self.truth.type, list(self._found.values()))

    @property
    def results(self) -> list[dict[str, Any]]:
        """COCO results with the ids of the dataset; evaluated from a file, they give the same numbers."""
        columns = self._columns()
        boxes, scores, masks = columns.boxes.tolist(), columns.scores.tolist(), columns.segmentations
        pairs = zip(columns.images.tolist(), columns.categories.tolist(), strict=True)
        records: list[dict[str, Any]] = []
        for row, (image, category) in enumerate(pairs):
            record = {"image_id": self.truth.image_ids[image], "category_id": self.truth.category_ids[category]}
            what = {"bbox": boxes[row]} if masks is None else {"segmentation": masks[row]}
            records.append({**record, **what, "score": scores[row]})
        return records


def _array(values: Any) -> NDArray[Any]:
    """Return a tensor or a sequence as an array in main memory."""
    array: NDArray[Any] = values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
    return array


def _xywh(detections: Detections) -> Floats:
    """Return xywh boxes (N, 4), subtracted in double precision as in a results file."""
    boxes: Floats = _array(detections.boxes).astype(np.float64)
    boxes[:, 2:] -= boxes[:, :2]
    return boxes


def _check(prefix: str, boxes: Floats, scores: Floats) -> None:
    def who(row: int) -> str:
        return f"{prefix} {row}"

    detection_checks.finite(scores, "score", who)
    checks.sound_boxes(boxes, who)
