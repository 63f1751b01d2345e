"""Objects of one image that two datasets have annotated."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

_SAME = 0.9  # IoU above which two boxes of one class are one object


def find_duplicates(
    images: NDArray[np.int64],
    entries: NDArray[np.int64],
    groups: NDArray[np.int64],
    boxes: NDArray[np.float64],
    has_segmentation: NDArray[np.bool_],
) -> list[tuple[int, int]]:
    """Find pairs of equal objects: same image and group, from two entries, with an IoU above 0.9.

    An object has at most one duplicate per entry. The earlier object is kept, unless only the later one has a
    segmentation.

    Args:
        images: (A,) int64, image of each object.
        entries: (A,) int64, image record that the object belongs to.
        groups: (A,) int64; only objects of one group (class, crowd or not) are compared.
        boxes: (A, 4) float64, [x, y, width, height] in pixels.
        has_segmentation: (A,) bool, True for objects with a segmentation.

    Returns:
        (left out, kept) positions, in ascending order of the first.
    """
    order = np.lexsort((entries, groups, images))
    cuts = np.flatnonzero((np.diff(images[order]) != 0) | (np.diff(groups[order]) != 0)) + 1
    starts, ends = [0, *cuts.tolist()], [*cuts.tolist(), len(order)]
    pairs: list[tuple[int, int]] = []
    for start, end in zip(starts, ends, strict=True):
        if end - start > 1 and entries[order[start]] != entries[order[end - 1]]:
            pairs += _duplicates_of(order[start:end], entries, boxes, has_segmentation)
    return sorted(pairs)


def _duplicates_of(
    rows: NDArray[np.int64], entries: NDArray[np.int64], boxes: NDArray[np.float64], has_segmentation: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Return the pairs among the objects of one image and group, in ascending order of entry."""
    by_entry: defaultdict[int, list[int]] = defaultdict(list)
    for row in rows.tolist():
        by_entry[int(entries[row])].append(row)
    first, *others = by_entry.values()
    pairs, standing = [], list(first)
    for later in others:
        matched = _matches(boxes[standing], boxes[later])
        for i, j in matched:
            one, two = standing[i], later[j]
            stays, goes = (two, one) if has_segmentation[two] and not has_segmentation[one] else (one, two)
            pairs.append((goes, stays))
            standing[i] = stays
        seen = {j for _, j in matched}
        standing += [row for j, row in enumerate(later) if j not in seen]
    return pairs


def _matches(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Sequence[tuple[int, int]]:
    """Return pairs of rows with an IoU above ``_SAME``, each row once, the best pair first."""
    iou = np.asarray(coco_mask.iou(ours, theirs, [0] * len(theirs)))
    found = [(int(i), int(j)) for i, j in np.argwhere(iou > _SAME)]
    matched: dict[int, int] = {}
    for i, j in sorted(found, key=lambda pair: -iou[pair]):
        if i not in matched and j not in matched.values():
            matched[i] = j
    return list(matched.items())
