"""Assignment of each detection to an object or to a type of error (TIDE, Bolya et al. 2020, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.evaluation.columns import Bools, Floats, GroundTruth, Ints, Results, drop_unlabeled
from tldet.evaluation.errors.match import best_of_each, match_detections, matchable
from tldet.evaluation.errors.overlaps import Pairs, largest, overlapping_pairs

HIT, CLS, LOC, BOTH, DUPE, BKG, IN_CROWD = range(7)  # kinds of detections
KINDS = ("Hit", "Cls", "Loc", "Both", "Dupe", "Bkg", "Ignored")
FALSE = (CLS, LOC, BOTH, DUPE, BKG)  # kinds that count as false positives
POSITIVE_IOU, BACKGROUND_IOU = 0.5, 0.1


@dataclass(frozen=True)
class Assigned:
    """Detections with their types and objects with their matches, at one IoU threshold.

    Attributes:
        truth: ground truth, without objects of classes that are not annotated on their image.
        results: D detections by image, best score first; at most 100 of a class on an image.
        pairs: overlaps of both.
        kinds: (D,) HIT, an error of FALSE, or IN_CROWD for a detection in a crowd region.
        objects: (D,) row of the object that a detection matches (HIT), duplicates (DUPE), or would match if its class
            (CLS) or box (LOC) were correct; -1 if there is none.
        ious: (D,) IoU with that object.
        found: (A,) row of the detection that matches an object; -1 if there is none.
        missed: (A,) bool, True for an object that no detection matches, nor would match with a correct class or box.
        iou: IoU at or above which a detection matches an object.
    """

    truth: GroundTruth
    results: Results
    pairs: Pairs
    kinds: NDArray[np.int8]
    objects: Ints
    ious: Floats
    found: Ints
    missed: Bools
    iou: float

    @property
    def counted(self) -> Bools:
        """(D,) bool, False for ignored detections."""
        return np.asarray(self.kinds != IN_CROWD)

    @property
    def hits(self) -> Bools:
        """(D,) bool, True for detections that match an object."""
        return np.asarray(self.kinds == HIT)


def assign_error_types(
    truth: GroundTruth, results: Results, *, iou: float = POSITIVE_IOU, background: float = BACKGROUND_IOU
) -> Assigned:
    """Match detections with objects as in COCO evaluation, and assign a type of error to each false positive.

    Args:
        truth: the objects.
        results: the detections.
        iou: IoU at or above which a detection matches an object.
        background: largest IoU of a detection with any object that counts as background.

    Returns:
        Assigned types. A false positive has the first type that applies: Loc if its best object of the same class has
        an IoU between ``background`` and ``iou``; Cls if an object of another class has an IoU of at least ``iou``;
        Dupe if an object of its class with an IoU of at least ``iou`` is already matched; Bkg if no object has an IoU
        above ``background``; else Both.
    """
    truth, results = drop_unlabeled(truth, results)
    results = best_of_each(results)
    pairs = overlapping_pairs(truth, results)
    found, used, crowded = match_detections(truth, results, matchable(truth, results, pairs, iou), iou)
    kinds = np.where(used >= 0, HIT, np.where(crowded, IN_CROWD, BKG)).astype(np.int8)
    objects, ious = used.copy(), np.zeros(len(results))
    plain = pairs.take(~truth.crowd[pairs.objects])
    hit = plain.objects == used[plain.detections]
    ious[plain.detections[hit]] = plain.ious[hit]
    _explain(truth, results, plain, found, (kinds, objects, ious), (iou, background))
    claimed = np.zeros(len(truth.images), np.bool_)
    claimed[objects[np.isin(kinds, (CLS, LOC))]] = True
    missed = (found < 0) & ~claimed & ~truth.crowd
    return Assigned(truth, results, pairs, kinds, objects, ious, found, missed, iou)


def _explain(
    truth: GroundTruth, results: Results, pairs: Pairs, found: Ints, columns: Any, limits: tuple[float, float]
) -> None:
    """Set the type of error, the object and the IoU of each false positive; the last rule that applies wins."""
    kinds, objects, ious = columns
    iou, background = limits
    same = results.categories[pairs.detections] == truth.categories[pairs.objects]
    taken = found[pairs.objects] >= 0
    beyond = pairs.ious >= iou
    rules = (
        (BOTH, pairs.ious > background),
        (DUPE, same & taken & beyond),
        (CLS, ~same & beyond),
        (LOC, same),
    )
    false = kinds == BKG
    for kind, fits in rules:
        best = largest(pairs.take(fits))
        rows = false[best.detections]
        if kind == LOC:  # the best object of the class must lie between the limits
            rows &= (best.ious >= background) & (best.ious <= iou)
        chosen = best.take(rows)
        kinds[chosen.detections], ious[chosen.detections] = kind, chosen.ious
        objects[chosen.detections] = -1 if kind == BOTH else chosen.objects
