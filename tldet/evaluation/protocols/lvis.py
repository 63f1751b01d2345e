"""Federated evaluation of LVIS (Gupta et al. 2019), as in lvis-api 0.5.3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from tldet.coco.records import CocoSource, read_list
from tldet.coco.results import Number
from tldet.errors import DataError
from tldet.evaluation.columns import Floats, GroundTruth, Results, drop_unlabeled
from tldet.evaluation.engines import hotcoco_evaluation
from tldet.evaluation.protocols.result import ProtocolResult
from tldet.evaluation.report import mean_defined

MAX_DETS = 300  # detections of all classes per image
FREQUENCIES = ("r", "c", "f")  # rare: up to 10 training images, common: up to 100, frequent: more
_FAR = 1e12  # square pixels: beyond all area ranges, so that the object is ignored
_KEYS = ("neg_category_ids", "not_exhaustive_category_ids")


class _Image(msgspec.Struct):
    id: Number
    neg_category_ids: list[Number] | None = None
    not_exhaustive_category_ids: list[Number] | None = None


class _Category(msgspec.Struct):
    id: Number
    frequency: str | None = None


class _Document(msgspec.Struct):
    images: list[_Image]
    categories: list[_Category]


def evaluate_lvis(source: CocoSource, truth: GroundTruth, results: Results) -> ProtocolResult:
    """Compute AP of all, rare, common and frequent classes, with at most 300 detections per image over all classes.

    Detections of a class are evaluated on the images with objects of the class and on those that list it in
    ``neg_category_ids``. Unmatched detections are ignored on images that list their class in
    ``not_exhaustive_category_ids``.

    Args:
        source: LVIS annotations.
        truth: ground truth from ``source``; crowd regions and objects with ``ignore`` or ``difficult`` are ignored.
        results: detections.

    Raises:
        DataError: an image or category lacks an LVIS key, or an image lists an unknown category.
    """
    document = read_list(source, _Document, truth.name)
    federated, frequency = _lists(document, truth), _frequencies(document, truth)
    ignored = truth.crowd if truth.flagged is None else truth.crowd | truth.flagged
    truth = replace(truth, crowd=np.zeros(len(ignored), np.bool_), areas=np.where(ignored, _FAR, truth.areas))
    truth, results = drop_unlabeled(truth, results)
    precision, recall = -np.ones((10, 101, 1, 4)), -np.ones((10, 1, 4))
    if truth.image_ids and truth.category_ids:
        evaluation = hotcoco_evaluation(truth, results, federated)
        evaluation.evaluate()
        evaluation.accumulate()
        precision, recall = evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]
    metrics = {f"LVIS {name}": mean_defined(one) for name, one in _metrics(precision, recall, frequency).items()}
    ap = {name: mean_defined(precision[:, :, k, 0]) for k, name in enumerate(truth.class_names)}
    settings = {"iou_thresholds": "0.50:0.95:0.05", "max_dets": MAX_DETS}
    return ProtocolResult(f"LVIS {truth.type}, {MAX_DETS} detections per image", metrics, "LVIS AP", ap, settings)


def _metrics(precision: Floats, recall: Floats, frequency: Sequence[str]) -> dict[str, Floats]:
    """Return the values that are averaged for each metric; precision (IoU, recall, class, area), recall likewise."""
    sizes = {"s": 1, "m": 2, "l": 3}
    groups = {name: [k for k, one in enumerate(frequency) if one == name] for name in FREQUENCIES}
    return {
        "AP": precision[..., 0],
        "AP50": precision[:1, ..., 0],
        "AP75": precision[5:6, ..., 0],
        **{f"AP{name}": precision[..., size] for name, size in sizes.items()},
        **{f"AP{name}": precision[:, :, ranks, 0] for name, ranks in groups.items()},
        f"AR@{MAX_DETS}": recall[..., 0],
        **{f"AR{name}@{MAX_DETS}": recall[..., size] for name, size in sizes.items()},
    }


def _lists(document: _Document, truth: GroundTruth) -> list[dict[str, Any]]:
    """Return the keys of LVIS of each image of ``truth``, with ranks from 1 instead of category ids."""
    stated, known = {image.id: image for image in document.images}, truth.category_rank()
    lists = []
    for image_id in truth.image_ids:
        found: dict[str, Any] = {}
        for key in _KEYS:
            ids = getattr(stated[image_id], key)
            if ids is None:
                raise DataError(f"{truth.name}: image id {image_id} has no {key}, which --lvis needs")
            unknown = [one for one in ids if one not in known]
            if unknown:
                raise DataError(f"{truth.name}: image id {image_id} has unknown category id {unknown[0]} in {key}")
            found[key] = [known[one] + 1 for one in ids]
        lists.append(found)
    return lists


def _frequencies(document: _Document, truth: GroundTruth) -> list[str]:
    """Return the frequency of each class of ``truth``."""
    stated = {category.id: category.frequency for category in document.categories}
    for key in truth.category_ids:
        if stated[key] not in FREQUENCIES:
            raise DataError(
                f"{truth.name}: category id {key} has frequency {stated[key]!r}; --lvis needs 'r', 'c' or 'f'"
            )
    return [str(stated[key]) for key in truth.category_ids]
