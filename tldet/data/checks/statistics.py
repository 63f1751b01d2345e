"""Statistics of a split that affect training: classes, empty images, object sizes, anchors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records
from tldet.runtime.images import fitted_size
from tldet.text import are, counted

_Floats = NDArray[np.float64]
_RARE = 10  # objects of a class
_IMBALANCE = 100  # ratio of the most frequent to the rarest class
_EMPTY = 0.5  # fraction of images without objects
_SMALL = 8.0  # pixels at the input size
_MANY_SMALL, _MANY_UNCOVERED = 0.25, 0.25  # fraction of objects above which the finding is a warning
_UNCOVERED = 0.01  # fraction of objects from which anchors are proposed
_PROPOSED = 9  # anchor shapes at most
_COVERED = 0.4  # least IoU of an object and its best anchor shape
_ROUNDS = 30  # of the clustering of anchor shapes
_NAMED = 5


@dataclass(frozen=True)
class InputSettings:
    """Training settings that objects are checked against.

    Attributes:
        short: short side to which images are resized, in pixels.
        long: limit of the long side.
        anchors: (N, 2) width and height of the anchors at the input size; empty for a model without anchors.
        max_detections: largest number of detections per image in COCO evaluation.
    """

    short: int = 320
    long: int = 640
    anchors: _Floats | None = None
    max_detections: int = 100


def check_classes(records: Records) -> Iterator[Finding]:
    """Yield rare classes, a large class imbalance, and a large fraction of images without objects."""
    if not len(records.labels):
        yield records.finding("no-annotations", "no annotations", fix="check that this is the right file")
        return
    counts = np.bincount(records.labels[~records.crowd], minlength=len(records.class_names))
    rare = np.flatnonzero((counts > 0) & (counts < _RARE))
    if len(rare):
        named = ", ".join(f"{records.class_names[label]} ({counts[label]})" for label in rare[:_NAMED].tolist())
        more = f", ... ({len(rare)} classes)" if len(rare) > _NAMED else ""
        yield records.finding("class-rare", f"classes with fewer than {_RARE} objects: {named}{more}")
    present = counts[counts > 0]
    if len(present) > 1 and present.max() >= _IMBALANCE * present.min():
        most, fewest = (
            records.class_names[int(np.flatnonzero(counts == n)[0])] for n in (present.max(), present.min())
        )
        text = f"{counted(present.max(), 'object')} of class {most!r}, but {present.min()} of class {fewest!r}"
        yield records.finding("class-imbalance", text)
    empty = len(records.image_ids) - len(np.unique(records.positions))
    if empty > _EMPTY * len(records.image_ids):
        yield records.finding("image-empty", f"no objects on {empty} of {counted(len(records.image_ids), 'image')}")


def check_objects(records: Records, settings: InputSettings) -> Iterator[Finding]:
    """Yield images with more objects than COCO evaluates, small objects, and objects that no anchor matches."""
    counts = np.bincount(records.positions[~records.crowd], minlength=len(records.image_ids))
    for position in np.flatnonzero(counts > settings.max_detections).tolist():
        used = counted(settings.max_detections, "detection")
        text = f"{counted(counts[position], 'object')}; COCO evaluation uses {used} per image"
        yield records.of_image("objects-many", position, text, fix="cut the image into tiles")
    sides = input_sides(records, settings)
    if not len(sides):
        return
    size = np.sqrt(sides.prod(1))
    small = size < _SMALL
    if small.any():
        fraction, count = float(small.mean()), int(small.sum())
        text = (
            f"{count} of {counted(len(size), 'object')} {are(count)} under {_SMALL:g} px at input size {settings.short}"
        )
        severity = "warning" if fraction > _MANY_SMALL else "info"
        yield records.finding("object-small", text, severity=severity, fix="use a larger input size, or tiles")
    if settings.anchors is not None and len(settings.anchors):
        yield from _check_anchors(records, sides, settings.anchors)


def input_sides(records: Records, settings: InputSettings) -> _Floats:
    """Return (N, 2) width and height of the usable objects at the input size."""
    known = (records.object_sizes > 0).all(1) & (records.boxes[:, 2:] > 0).all(1) & ~records.crowd
    scales = np.ones(len(records.sizes))
    for position, size in enumerate(records.sizes.tolist()):
        if min(size) > 0:
            scales[position] = min(fitted_size(tuple(size), settings.short, settings.long)) / min(size)
    sides = np.minimum(records.boxes[known, 2:], records.object_sizes[known][:, ::-1])
    return np.asarray(sides * scales[records.positions[known], None])


def _check_anchors(records: Records, sides: _Floats, anchors: _Floats) -> Iterator[Finding]:
    best = shape_iou(sides, anchors).max(1)
    bad = best < _COVERED
    if bad.mean() < _UNCOVERED:
        return
    proposed = np.round(cluster_shapes(sides, min(_PROPOSED, len(anchors)))).astype(int)
    after = float((shape_iou(sides, proposed.astype(np.float64)).max(1) < _COVERED).mean())
    shapes = ", ".join(f"{width}x{height}" for width, height in proposed.tolist())
    text = f"IoU below {_COVERED:g} with every anchor: {int(bad.sum())} of {counted(len(sides), 'object')}"
    severity = "warning" if bad.mean() > _MANY_UNCOVERED else "info"
    fix = f"with anchors of {shapes} (width x height at the input size), {after:.1%} of the objects would"
    yield records.finding("anchors", text, severity=severity, fix=fix)


def shape_iou(sides: _Floats, anchors: _Floats) -> _Floats:
    """Return (N, A) IoU of boxes (N, 2) and anchors (A, 2), width and height, with the same center."""
    inside = np.minimum(sides[:, None], anchors[None]).prod(2)
    return np.asarray(inside / (sides.prod(1)[:, None] + anchors.prod(1)[None] - inside))


def cluster_shapes(sides: _Floats, count: int, sample: int = 5000) -> _Floats:
    """Cluster the shapes of boxes by IoU (k-means of Redmon and Farhadi 2017, section 2).

    Args:
        sides: (N, 2) width and height.
        count: number of clusters.
        sample: maximum number of boxes used, evenly sampled by area.

    Returns:
        (at most ``count``, 2) medians of the clusters, by area.
    """
    order = np.argsort(sides.prod(1), kind="stable")
    drawn = sides[order[np.unique(np.linspace(0, len(order) - 1, min(sample, len(order))).astype(int))]]
    centers = drawn[np.unique(np.linspace(0, len(drawn) - 1, min(count, len(drawn))).astype(int))]
    for _ in range(_ROUNDS):
        nearest = shape_iou(drawn, centers).argmax(1)
        moved = np.array([np.median(drawn[nearest == k], 0) for k in np.unique(nearest)])
        if moved.shape == centers.shape and np.allclose(moved, centers):
            break
        centers = moved
    return np.asarray(centers[np.argsort(centers.prod(1))])
