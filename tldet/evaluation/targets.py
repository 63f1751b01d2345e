"""Ground truth from targets, without a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.evaluation.columns import GroundTruth, Type
from tldet.structures import rle

if TYPE_CHECKING:  # scoring files needs no torch
    from tldet.structures.target import Target


def ground_truth_of(
    targets: Iterable[Target],
    class_names: Sequence[str],
    *,
    sizes: Sequence[tuple[int, int]] | None = None,
    category_ids: Sequence[int] | None = None,
    type: Type = "bbox",
    name: str = "the targets",
) -> GroundTruth:
    """Make the ground truth of an evaluation from targets.

    Areas, which decide whether an object counts as small, medium or large, are those of the masks for "segm", else
    those of the boxes.

    Args:
        targets: one per image, in pixels of the original images, with different image ids.
        class_names: name of each label.
        sizes: (height, width) of each image; None takes those of the masks, else 0.
        category_ids: category id of each label in rising order; 1, 2, ... by default.
        type: "bbox" or "segm".
        name: name in messages.

    Raises:
        DataError: image ids are not unique, or masks are missing.
    """
    every = sorted(zip(targets, _or_none(sizes), strict=False), key=lambda pair: pair[0].image_id)
    ids = [int(target.image_id) for target, _ in every]
    if len(set(ids)) < len(ids):
        raise DataError(f"{name}: targets must have different image ids")
    boxes = np.concatenate([np.zeros((0, 4)), *(_array(target.boxes).reshape(-1, 4) for target, _ in every)])
    boxes[:, 2:] -= boxes[:, :2]
    masks = [mask for target, _ in every for mask in _encoded(target, name)] if type == "segm" else None
    count = len(class_names)
    return GroundTruth(
        name=name,
        type=type,
        image_ids=ids,
        sizes=[_size(target, size) for target, size in every],
        category_ids=list(category_ids or range(1, count + 1)),
        class_names=list(class_names),
        images=np.repeat(np.arange(len(every)), [len(target.boxes) for target, _ in every]),
        categories=np.concatenate([np.zeros(0, np.int64), *(_array(one.labels).astype(np.int64) for one, _ in every)]),
        boxes=boxes,
        areas=boxes[:, 2] * boxes[:, 3] if masks is None else rle.areas_and_boxes(masks)[0],
        crowd=np.concatenate([np.zeros(0, np.bool_), *(_ignored(target) for target, _ in every)]),
        segmentations=masks,
        labeled=_labeled([target for target, _ in every], count),
    )


def _or_none(sizes: Sequence[tuple[int, int]] | None) -> Iterable[Any]:
    from itertools import repeat

    return repeat(None) if sizes is None else sizes


def _array(values: Any) -> NDArray[np.float64]:
    return np.asarray(values.detach().cpu().numpy(), np.float64)


def _ignored(target: Target) -> NDArray[np.bool_]:
    return _array(target.ignore).astype(np.bool_) if len(target.ignore) else np.zeros(len(target.boxes), np.bool_)


def _size(target: Target, size: Sequence[int] | None) -> tuple[int, int]:
    if size is not None:
        return int(size[0]), int(size[1])
    return (0, 0) if target.masks is None else (int(target.masks.shape[1]), int(target.masks.shape[2]))


def _encoded(target: Target, name: str) -> list[dict[str, Any]]:
    from pycocotools import mask as coco_mask

    if target.masks is None and len(target.boxes):
        raise DataError(f"{name}: image_id {target.image_id} has no masks, which are to be evaluated")
    masks: Any = [] if target.masks is None else target.masks.cpu().numpy()
    return [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def _labeled(targets: Sequence[Target], count: int) -> NDArray[np.bool_] | None:
    """Return (I, K) bool, or None if all classes are annotated on all images."""
    stated = [np.ones(count, np.bool_) if t.labeled is None else _array(t.labeled).astype(np.bool_) for t in targets]
    table = np.stack(stated) if stated else np.ones((0, count), np.bool_)
    return None if table.all() else table
