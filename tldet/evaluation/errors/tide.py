"""AP lost to each type of error (TIDE, Bolya et al. 2020): the AP at one IoU with all errors of a type corrected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tldet.evaluation.columns import Bools, Floats, Ints
from tldet.evaluation.errors.assign import BKG, BOTH, CLS, DUPE, KINDS, LOC, Assigned
from tldet.evaluation.resample import average_precision

TYPES = ("Cls", "Loc", "Both", "Dupe", "Bkg", "Miss")
ORACLES = ("FP", "FN")  # all false positives corrected; all false negatives corrected
MEANINGS = {
    "Cls": "wrong class: IoU of at least 0.5 with an object of another class",
    "Loc": "inaccurate box: IoU of 0.1 to 0.5 with an object of the class",
    "Both": "wrong class and inaccurate box",
    "Dupe": "duplicate: the object is matched by a detection of higher score",
    "Bkg": "background: IoU of at most 0.1 with any object",
    "Miss": "missed object: no detection matches it, nor would with a corrected class or box",
}


@dataclass(frozen=True)
class Tide:
    """AP lost to each type of error.

    Attributes:
        ap: (K,) AP of each class at the IoU threshold, 0..1; NaN without objects.
        lost: AP lost of each class, (K,), by type and oracle; NaN without objects. Negative values occur if a
            correction changes the class of confident detections.
        counts: number of errors of each class, (K,), by type.
    """

    ap: Floats
    lost: dict[str, Floats]
    counts: dict[str, Ints]

    @property
    def overall(self) -> dict[str, float]:
        """AP lost, averaged over classes, by type and oracle."""
        found = {name: _mean(self.ap + lost) - _mean(self.ap) for name, lost in self.lost.items()}
        return {name: max(value, 0.0) for name, value in found.items()}

    @property
    def overall_ap(self) -> float:
        """AP averaged over classes; NaN without objects."""
        return _mean(self.ap)


class _Points(NamedTuple):
    """Points of precision-recall curves, by class and best score first, and the objects of each class (K,)."""

    categories: Ints
    scores: Floats
    hits: Bools
    objects: Ints

    def ordered(self) -> _Points:
        """Return the points by class, best score first."""
        order = np.lexsort((-self.scores, self.categories))
        return self._replace(categories=self.categories[order], scores=self.scores[order], hits=self.hits[order])


def tide(assigned: Assigned) -> Tide:
    """Compute the AP lost to each type of error and its number of errors, of each class."""
    rows, truth, results = _rows(assigned), assigned.truth, assigned.results
    objects = np.bincount(truth.categories[~truth.crowd], minlength=len(truth.category_ids))
    base = _Points(results.categories[rows], results.scores[rows], assigned.hits[rows], objects)
    ap = _class_ap(base)
    corrected = {name: _class_ap(points) for name, points in _corrected(assigned, base, rows)}
    # If no objects of a class remain after a correction, its AP counts as 0.
    lost = {name: np.where(np.isnan(found), 0.0, found) - ap for name, found in corrected.items()}
    return Tide(ap, lost, error_counts(assigned))


def error_counts(assigned: Assigned) -> dict[str, Ints]:
    """Return the number of errors of each class, (K,), by type; false positives by their predicted class."""
    classes, results = len(assigned.truth.category_ids), assigned.results
    counts = {KINDS[kind]: results.categories[assigned.kinds == kind] for kind in (CLS, LOC, BOTH, DUPE, BKG)}
    counts["Miss"] = assigned.truth.categories[assigned.missed]
    return {name: np.bincount(categories, minlength=classes) for name, categories in counts.items()}


def _rows(assigned: Assigned) -> Ints:
    """Return the detections that are not ignored, by class and best score first."""
    results, rows = assigned.results, np.flatnonzero(assigned.counted)
    return np.asarray(rows[np.lexsort((-results.scores[rows], results.categories[rows]))])


def _corrected(assigned: Assigned, base: _Points, rows: Ints) -> Iterator[tuple[str, _Points]]:
    """Yield the points with the errors of each type corrected."""
    kinds = assigned.kinds[rows]
    claims = np.isin(rows, _claims(assigned))
    for kind in (CLS, LOC, BOTH, DUPE, BKG):
        fixed = claims & (kinds == kind)
        kept = (kinds != kind) | fixed
        points = _Points(base.categories[kept], base.scores[kept], (base.hits | fixed)[kept], base.objects)
        if kind == CLS:
            points.categories[fixed[kept]] = assigned.truth.categories[assigned.objects[rows[fixed]]]
        yield KINDS[kind], points.ordered() if kind == CLS else points
    truth, classes = assigned.truth, len(base.objects)
    missed = np.bincount(truth.categories[assigned.missed], minlength=classes)
    yield "Miss", base._replace(objects=base.objects - missed)
    yield "FP", base._replace(scores=base.hits.astype(np.float64)).ordered()
    unfound = np.bincount(truth.categories[(assigned.found < 0) & ~truth.crowd], minlength=classes)
    yield "FN", base._replace(objects=base.objects - unfound)


def _claims(assigned: Assigned) -> Ints:
    """Return, for each unmatched object, the detection of the best score that would match it if corrected."""
    rows = np.flatnonzero(np.isin(assigned.kinds, (CLS, LOC)) & (assigned.objects >= 0))
    rows = rows[assigned.found[assigned.objects[rows]] < 0]  # best score first on an image
    return np.asarray(rows[np.unique(assigned.objects[rows], return_index=True)[1]])


def _class_ap(points: _Points) -> Floats:
    hits = points.hits
    ends = np.searchsorted(points.categories, np.arange(len(points.objects) + 1))
    ap = np.full(len(points.objects), np.nan)
    for category in np.flatnonzero(points.objects):
        true = hits[ends[category] : ends[category + 1]][None, None].astype(np.int64)
        positives, negatives = np.cumsum(true, 2), np.cumsum(1 - true, 2)
        ap[category] = average_precision(positives, negatives, points.objects[category : category + 1])[0]
    return ap


def _mean(values: Floats) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")
