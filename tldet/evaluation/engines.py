"""The two evaluators behind one function: hotcoco ("fast", Rust) and pycocotools (the reference)."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from typing import Any, Literal

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Results, judged
from tldet.evaluation.report import CocoResult, class_precision, summarize

Engine = Literal["fast", "pycocotools"]
ENGINES: tuple[Engine, ...] = ("fast", "pycocotools")


def score(truth: GroundTruth, results: Results, engine: Engine = "fast", *, agnostic: bool = False) -> CocoResult:
    """Score ``results``; both engines give the same numbers to the last bit.

    Args:
        truth: the pictures to score and what is on them.
        results: the detections on these pictures.
        engine: "fast" or "pycocotools".
        agnostic: take all classes as one (``useCats = 0``); then there are no numbers by class.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, not {engine!r}")
    given = len(results)
    truth, results = judged(truth, results)
    scored = len(results)
    counts: dict[str, Any] = {"images": len(truth.image_ids), "detections": scored, "unjudged": given - scored}
    result = CocoResult(type=truth.type, engine=engine, **counts)
    if not truth.image_ids or not truth.category_ids:
        result.per_class = {} if agnostic else dict.fromkeys(truth.class_names, -1.0)
        result.per_class_ap50 = dict(result.per_class)
        return result
    run = _run_hotcoco if engine == "fast" else _run_pycocotools
    precision, recall = run(truth, results, agnostic)
    for name, value in summarize(precision, recall).items():
        setattr(result, name, value)
    if not agnostic:
        result.per_class, result.per_class_ap50 = class_precision(precision, truth.class_names)
    return result


def _images(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": rank + 1, "height": height, "width": width} for rank, (height, width) in enumerate(truth.sizes)]


def _categories(truth: GroundTruth) -> list[dict[str, Any]]:
    return [{"id": rank + 1, "name": name} for rank, name in enumerate(truth.class_names)]


def _run_hotcoco(truth: GroundTruth, results: Results, agnostic: bool) -> tuple[Floats, Floats]:
    import hotcoco

    masks = {} if truth.segmentations is None else {"segmentation": list(truth.segmentations)}
    ground = hotcoco.COCO.from_arrays(
        _images(truth),
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
    if len(results):  # it takes the box's area; a mask may have its own
        found.update_anns(ids=np.arange(1, len(results) + 1), area=results.areas)
    evaluation = hotcoco.COCOeval(ground, found, truth.type)
    evaluation.params.use_cats = not agnostic
    evaluation.evaluate()
    evaluation.accumulate()
    measured: Any = evaluation.eval
    return measured["precision"], measured["recall"]


def _run_pycocotools(truth: GroundTruth, results: Results, agnostic: bool) -> tuple[Floats, Floats]:
    with redirect_stdout(io.StringIO()):  # it prints what it does
        evaluation = _pycocotools_evaluation(truth, results)
        evaluation.params.useCats = int(not agnostic)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def matched(truth: GroundTruth, results: Results) -> list[dict[str, Any] | None]:
    """What pycocotools matched on each picture, all sizes of objects: class by class, each with every picture in turn.

    Each holds ``dtScores``, ``dtMatches`` and ``dtIgnore`` (IoU, detection) and ``gtIgnore``; None where a picture
    has neither an object nor a detection of the class.
    """
    with redirect_stdout(io.StringIO()):
        evaluation = _pycocotools_evaluation(truth, results)
        evaluation.params.areaRng, evaluation.params.areaRngLbl = evaluation.params.areaRng[:1], ["all"]
        evaluation.params.maxDets = evaluation.params.maxDets[-1:]
        evaluation.evaluate()
    return list(evaluation.evalImgs)


def _pycocotools_evaluation(truth: GroundTruth, results: Results) -> Any:
    from pycocotools.cocoeval import COCOeval

    ground = _pycocotools_dataset(truth, truth, truth.crowd)
    found = _pycocotools_dataset(truth, results, np.zeros(len(results), bool), results.scores)
    return COCOeval(ground, found, truth.type)


def _pycocotools_dataset(
    truth: GroundTruth, rows: GroundTruth | Results, crowd: Any, scores: Floats | None = None
) -> Any:
    """A ``pycocotools.coco.COCO``; ``loadRes`` is not used because it fails on an empty list."""
    from pycocotools.coco import COCO

    columns = (rows.images + 1, rows.categories + 1, rows.boxes, rows.areas, crowd.astype(int))
    keys = ("image_id", "category_id", "bbox", "area", "iscrowd")
    values = zip(*(column.tolist() for column in columns), strict=True)
    records = [dict(zip(keys, row, strict=True), id=place) for place, row in enumerate(values, start=1)]
    for place, record in enumerate(records):
        if scores is not None:
            record["score"] = float(scores[place])
        if rows.segmentations is not None:
            record["segmentation"] = rows.segmentations[place]
    coco = COCO()
    coco.dataset = {"images": _images(truth), "categories": _categories(truth), "annotations": records}
    coco.createIndex()
    return coco
