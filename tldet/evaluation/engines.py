"""Evaluation engines: hotcoco ("fast", Rust) and pycocotools (the reference)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from itertools import repeat
from typing import Any, Literal

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Results, drop_unlabeled
from tldet.evaluation.report import CocoResult, class_precision, mean_defined, summarize

Engine = Literal["fast", "pycocotools"]
ENGINES: tuple[Engine, ...] = ("fast", "pycocotools")


def score_results(
    truth: GroundTruth, results: Results, engine: Engine = "fast", *, agnostic: bool = False
) -> CocoResult:
    """Evaluate ``results``; the numbers of both engines are bit-identical.

    Args:
        truth: ground truth of the images to evaluate.
        results: detections on these images.
        engine: "fast" or "pycocotools".
        agnostic: ignore classes (``useCats = 0``); the result has no AP per class.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    total = len(results)
    truth, results = drop_unlabeled(truth, results)
    result = _empty_result(truth, engine, len(truth.image_ids), total, len(results))
    if agnostic:
        result.per_class, result.per_class_ap50 = {}, {}
    if not truth.image_ids or not truth.category_ids:
        return result
    found = precision_recall(truth, results, engine, useCats=int(not agnostic))
    return _filled(result, *found, () if agnostic else truth.class_names)


def _empty_result(truth: GroundTruth, engine: Engine, images: int, total: int, scored: int) -> CocoResult:
    """Return a result without numbers that counts images and detections."""
    none = dict.fromkeys(truth.class_names, -1.0)
    about: dict[str, Any] = {"type": truth.type, "engine": engine, "per_class": none, "per_class_ap50": dict(none)}
    return CocoResult(images=images, detections=scored, unjudged=total - scored, **about)


def _filled(result: CocoResult, precision: Floats, recall: Floats, class_names: Sequence[str]) -> CocoResult:
    """Set the twelve metrics and those of each class."""
    for name, value in summarize(precision, recall).items():
        setattr(result, name, value)
    if class_names:
        result.per_class, result.per_class_ap50 = class_precision(precision, class_names)
    return result


class StreamingScorer:
    """Fast engine that matches the detections of each image as they arrive, and accumulates at the end.

    Args:
        truth: ground truth of the dataset; the images added by :meth:`add` are evaluated.
    """

    def __init__(self, truth: GroundTruth) -> None:
        import hotcoco

        self._truth = truth
        self._stream = hotcoco.StreamingEval(_categories(truth), truth.type)
        self._order = np.argsort(truth.images, kind="stable")
        self._starts = np.searchsorted(truth.images[self._order], np.arange(len(truth.image_ids) + 1))
        self._images = self._scored = self._given = 0

    def add(self, rank: int, found: Results) -> None:
        """Match the detections of the image of a rank with its objects."""
        rows = self._order[self._starts[rank] : self._starts[rank + 1]]
        self._given += len(found)
        truth, found = drop_unlabeled(self._truth.take(rows), found)
        self._images += 1
        self._scored += len(found)
        height, width = truth.sizes[rank]
        self._stream.update([{"id": rank + 1, "height": height, "width": width}], _objects(truth), _found(found))

    def compute(self) -> CocoResult:
        """Evaluate the images added so far."""
        import hotcoco

        result = _empty_result(self._truth, "fast", self._images, self._given, self._scored)
        if not self._images or not self._truth.category_ids:
            return result
        evaluation = hotcoco.StreamingEval.merge([self._stream]).finalize()  # a copy, so that images can be added later
        evaluation.accumulate()
        evaluated: Any = evaluation.eval
        return _filled(result, evaluated["precision"], evaluated["recall"], self._truth.class_names)


def _objects(truth: GroundTruth) -> list[dict[str, Any]]:
    """Return annotation records."""
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    columns = (truth.images + 1, truth.categories + 1, truth.boxes, truth.areas, truth.crowd.astype(int))
    values = zip(*(column.tolist() for column in columns), strict=True)
    records = [dict(zip(keys, row, strict=True), id=number) for number, row in enumerate(values, start=1)]
    for record, segmentation in zip(records, truth.segmentations or [], strict=False):
        record["segmentation"] = segmentation
    return records


def _found(results: Results) -> Any:
    """Return rows of a results file; for masks records, because the area is that of the mask."""
    images, categories = results.images + 1, results.categories + 1
    if results.segmentations is None:
        return np.column_stack([images, results.boxes, results.scores, categories])
    keys = ("image_id", "category_id", "score")
    values = zip(*(column.tolist() for column in (images, categories, results.scores)), strict=True)
    pairs = zip(values, results.segmentations, strict=True)
    return [dict(zip(keys, row, strict=True), segmentation=mask) for row, mask in pairs]


def _images(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": rank + 1, "height": height, "width": width} for rank, (height, width) in enumerate(truth.sizes)]


def _categories(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": rank + 1, "name": name} for rank, name in enumerate(truth.class_names)]


def range_metrics(
    truth: GroundTruth, results: Results, ranges: Sequence[tuple[float, float]]
) -> tuple[Floats, Floats, Floats]:
    """Return AP, AP50 and AR in ranges of what ``areas`` contains, (R,) each; -1 in a range without objects.

    As for COCO's APs, APm and APl, objects outside of a range are ignored there, and so are detections outside of it
    that match no object.

    Args:
        truth: ground truth.
        results: detections.
        ranges: lowest and highest value, both included.
    """
    truth, results = drop_unlabeled(truth, results)
    if not truth.image_ids or not truth.category_ids:
        return np.full(len(ranges), -1.0), np.full(len(ranges), -1.0), np.full(len(ranges), -1.0)
    labels = [str(number) for number in range(len(ranges))]
    areas = [list(ends) for ends in ranges]
    found = precision_recall(truth, results, "fast", areaRng=areas, areaRngLbl=labels, maxDets=[100])
    precision, recall = (values[..., 0] for values in found)
    values = [(precision[..., r], precision[:1, ..., r], recall[..., r]) for r in range(len(ranges))]
    ap, ap50, ar = zip(*([float(mean_defined(one)) for one in row] for row in values), strict=True)
    return np.array(ap), np.array(ap50), np.array(ar)


def precision_recall(truth: GroundTruth, results: Results, engine: Engine, **params: Any) -> tuple[Floats, Floats]:
    """Evaluate with some parameters other than COCO's.

    Args:
        truth: ground truth of at least one image and class.
        results: detections on these images.
        engine: "fast" or "pycocotools".
        params: parameters by their names in pycocotools: ``iouThrs``, ``maxDets``, ``areaRng``, ``useCats``, ...

    Returns:
        precision (IoU, recall, class, area range, most detections) and recall without the second axis; -1 without
        ground truth.
    """
    prepare = hotcoco_evaluation if engine == "fast" else _pycocotools_evaluation
    with nullcontext() if engine == "fast" else redirect_stdout(io.StringIO()):  # pycocotools prints its progress
        evaluation = prepare(truth, results)
        for name, value in params.items():
            setattr(evaluation.params, name, value)
        evaluation.evaluate()
        evaluation.accumulate()
    evaluated: Any = evaluation.eval
    return evaluated["precision"], evaluated["recall"]


def hotcoco_evaluation(
    truth: GroundTruth, results: Results, federated: Sequence[Mapping[str, Any]] | None = None
) -> Any:
    """Return the evaluation of hotcoco, before it is run.

    Args:
        truth: ground truth.
        results: detections.
        federated: LVIS keys of each image, to evaluate as lvis-api; None to evaluate as pycocotools.
    """
    import hotcoco

    masks = {} if truth.segmentations is None else {"segmentation": list(truth.segmentations)}
    ground = hotcoco.COCO.from_arrays(
        [{**image, **more} for image, more in zip(_images(truth), federated or repeat({}), strict=False)],
        _categories(truth),
        truth.images + 1,
        truth.categories + 1,
        truth.boxes,
        area=truth.areas,
        iscrowd=truth.crowd,
        **masks,
    )
    rows = np.column_stack([results.images + 1, results.boxes, results.scores, results.categories + 1])
    masks = {} if results.segmentations is None else {"segmentation": list(results.segmentations)}
    found = ground.load_res(rows, **masks)
    if len(results):  # set the area of the mask instead of the box
        found.update_anns(ids=np.arange(1, len(results) + 1), area=results.areas)
    return hotcoco.COCOeval(ground, found, truth.type, lvis_style=federated is not None)


def _pycocotools_evaluation(truth: GroundTruth, results: Results) -> Any:
    from pycocotools.cocoeval import COCOeval

    ground = _pycocotools_dataset(truth, truth, truth.crowd)
    found = _pycocotools_dataset(truth, results, np.zeros(len(results), bool), results.scores)
    return COCOeval(ground, found, truth.type)


def _pycocotools_dataset(
    truth: GroundTruth, rows: GroundTruth | Results, crowd: Any, scores: Floats | None = None
) -> Any:
    """Create a ``pycocotools.coco.COCO``; ``loadRes`` is not used because it fails on an empty list."""
    from pycocotools.coco import COCO

    columns = (rows.images + 1, rows.categories + 1, rows.boxes, rows.areas, crowd.astype(int))
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    values = zip(*(column.tolist() for column in columns), strict=True)
    records = [dict(zip(keys, record, strict=True), id=number) for number, record in enumerate(values, start=1)]
    for row, record in enumerate(records):
        if scores is not None:
            record["score"] = float(scores[row])
        if rows.segmentations is not None:
            record["segmentation"] = rows.segmentations[row]
    coco = COCO()
    coco.dataset = {"images": _images(truth), "categories": _categories(truth), "annotations": records}
    coco.createIndex()
    return coco
