"""AP by attributes of the objects: size, aspect ratio, crowding."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tldet.evaluation.columns import Floats, GroundTruth, Ints, Results
from tldet.evaluation.engines import range_metrics
from tldet.evaluation.errors.assign import Assigned
from tldet.evaluation.errors.overlaps import Pairs, overlapping_pairs

_FAR = 1e15
Ranges = tuple[tuple[str, float, float], ...]  # name, lowest and highest value
SIZES: Ranges = (
    ("< 16", 0, 16),
    ("16 to 32", 16, 32),
    ("32 to 96", 32, 96),
    ("96 to 288", 96, 288),
    ("> 288", 288, _FAR),
)
RATIOS: Ranges = (
    ("< 1/3", 0, 1 / 3),
    ("1/3 to 2/3", 1 / 3, 2 / 3),
    ("2/3 to 3/2", 2 / 3, 1.5),
    ("3/2 to 3", 1.5, 3),
    ("> 3", 3, _FAR),
)
CROWDING: Ranges = (("none", 0, 0), ("0 to 0.1", 1e-9, 0.1), ("0.1 to 0.3", 0.1, 0.3), ("> 0.3", 0.3, 1))


@dataclass(frozen=True)
class ByAttribute:
    """Metrics of the objects in ranges of an attribute.

    Attributes:
        names: R ranges.
        objects: (R,) number of objects.
        ap: (R,) COCO AP of each range; -1 without objects.
        ap50: (R,) AP at an IoU of 0.5.
        ar: (R,) AR with 100 detections per image.
    """

    names: list[str]
    objects: Ints
    ap: Floats
    ap50: Floats
    ar: Floats


def by_size(assigned: Assigned) -> ByAttribute:
    """Compute AP by object size, the square root of the area in pixels."""
    return _by(assigned, np.sqrt(assigned.truth.areas), np.sqrt(assigned.results.areas), SIZES)


def by_aspect_ratio(assigned: Assigned) -> ByAttribute:
    """Compute AP by width / height of the boxes."""
    return _by(assigned, _ratio(assigned.truth.boxes), _ratio(assigned.results.boxes), RATIOS)


def by_crowding(assigned: Assigned) -> ByAttribute:
    """Compute AP by crowding: the largest IoU of an object's box with another object's box.

    The value of a detection is the second largest IoU of its box with that of an object.
    """
    truth, results = assigned.truth, assigned.results
    pairs = assigned.pairs if truth.type == "bbox" else _box_pairs(truth, results)
    objects = _second(_object_pairs(truth), len(truth.images))
    return _by(assigned, objects, _second(_plain(truth, pairs), len(results)), CROWDING)


def _by(assigned: Assigned, objects: Floats, detections: Floats, ranges: Ranges) -> ByAttribute:
    truth, results = replace(assigned.truth, areas=objects), replace(assigned.results, areas=detections)
    plain = objects[~truth.crowd]
    inside = [(plain >= low) & (plain <= high) for _, low, high in ranges]
    ap, ap50, ar = range_metrics(truth, results, [(low, high) for _, low, high in ranges])
    return ByAttribute([name for name, _, _ in ranges], np.array([one.sum() for one in inside]), ap, ap50, ar)


def _ratio(boxes: Floats) -> Floats:
    return np.asarray(boxes[:, 2] / np.maximum(boxes[:, 3], 1e-9))


def _object_pairs(truth: GroundTruth) -> Pairs:
    """Return the overlaps between the boxes of the objects of each image; each box also overlaps itself."""
    scores = np.zeros(len(truth.images))
    found = Results(truth.images, truth.categories, truth.boxes, scores, truth.areas, None)
    return _plain(truth, _box_pairs(truth, found))


def _box_pairs(truth: GroundTruth, results: Results) -> Pairs:
    """Return the overlaps between the boxes of objects and detections, also if they have masks."""
    return overlapping_pairs(replace(truth, type="bbox", segmentations=None), results)


def _plain(truth: GroundTruth, pairs: Pairs) -> Pairs:
    return pairs.take(~truth.crowd[pairs.objects])


def _second(pairs: Pairs, count: int) -> Floats:
    """Return the second largest IoU of each detection, (D,); 0 with fewer than two overlaps."""
    order = np.lexsort((-pairs.ious, pairs.detections))
    rows, ious = pairs.detections[order], pairs.ious[order]
    first = np.searchsorted(rows, np.arange(count))
    there = np.searchsorted(rows, np.arange(count), side="right") - first > 1
    second = np.zeros(count)
    second[there] = ious[first[there] + 1]
    return second
