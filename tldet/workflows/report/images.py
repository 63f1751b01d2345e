"""Images of a report: those with the most errors, drawn in the browser with ground truth next to detections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from tldet.evaluation.columns import Floats, Ints
from tldet.evaluation.errors.analysis import Analysis
from tldet.evaluation.errors.assign import KINDS
from tldet.evaluation.errors.images import worst_images
from tldet.evaluation.errors.tide import MEANINGS, TYPES
from tldet.structures import rle
from tldet.structures.image import ImageArray, Size
from tldet.text import counted
from tldet.visualize.page.document import Section
from tldet.visualize.page.gallery import DrawnRow, GalleryImage, gallery
from tldet.visualize.page.images import jpeg_url, mask_outline
from tldet.workflows.report.source import Reader

_SIDE, _QUALITY = 480, 72  # long side in pixels, JPEG quality
_MOST = 60  # maximum number of detections per image
_LEAST = 0.02  # score threshold of the detections in the report
_FLAT = 1.5  # maximum distance of a drawn outline to the mask, pixels
SHOWN_MEANINGS = {
    **{name: MEANINGS[name] for name in TYPES},
    "Miss": "missed object: no detection at or above the score threshold matches it",
}


def images_section(found: Analysis, read: Reader, most: int) -> Section:
    """Return the gallery of the images with the most errors."""
    ranks = worst_images(found.assigned, found.threshold, most)
    if not len(ranks):
        return Section("Images", [f"No errors at score threshold {found.threshold:.2f}."])
    images = gallery_images([found], ranks, read)
    text = f"The {counted(len(ranks), 'image')} with the most errors. Left: ground truth. Right: detections."
    without = sum(not one.source for one in images)
    more = [f"{counted(without, 'image')} not found, shown as boxes only (use --images)."] if without else []
    html = gallery(images, found.truth.class_names, SHOWN_MEANINGS, {"": found.threshold})
    return Section("Images", [text, *more], html=html)


def gallery_images(detectors: Sequence[Analysis], ranks: Ints | Sequence[int], read: Reader) -> list[GalleryImage]:
    """Return images with their objects, and the detections of each detector.

    Args:
        detectors: analyses of detectors on the same images.
        ranks: indices of the images in ``truth.image_ids``.
        read: returns the image with such an index.
    """
    scores = [np.append(one.assigned.results.scores, -1.0)[one.assigned.found] for one in detectors]
    return [_gallery_image(detectors, scores, int(rank), read(int(rank))) for rank in ranks]


def _gallery_image(
    detectors: Sequence[Analysis], scores: Sequence[Floats], rank: int, pixels: ImageArray | None
) -> GalleryImage:
    truth = detectors[0].assigned.truth
    objects = np.flatnonzero(truth.images == rank)
    shown = [_shown(one, rank) for one in detectors]
    size = truth.sizes[rank] if pixels is None else (pixels.shape[0], pixels.shape[1])
    if min(size) <= 0:
        boxes = [one.assigned.results.boxes[rows] for one, rows in zip(detectors, shown, strict=True)]
        size = _extent(truth.boxes[objects], *boxes)
    crowd = ["Ignored" if truth.crowd[row] else "" for row in objects]
    detections = []
    for one, rows in zip(detectors, shown, strict=True):
        kinds = [KINDS[kind] for kind in one.assigned.kinds[rows]]
        detections.append(_rows(one.assigned.results, rows, one.assigned.results.scores, kinds, size))
    return GalleryImage(
        image_name(detectors[0], rank),
        size[1],
        size[0],
        _rows(truth, objects, np.full(len(truth.images), -1.0), crowd, size),
        [[round(float(score), 3) for score in own[objects]] for own in scores],
        detections,
        "" if pixels is None else data_url(pixels),
    )


def _shown(found: Analysis, rank: int) -> Ints:
    """Return the detections of an image that are in the gallery, best score first."""
    results, least = found.assigned.results, min(_LEAST, found.threshold)
    start, end = np.searchsorted(results.images, [rank, rank + 1])
    return np.asarray(np.arange(start, end)[results.scores[start:end] >= least][:_MOST])


def data_url(pixels: ImageArray, side: int = _SIDE) -> str:
    """Return an RGB image as a JPEG data URL, with a long side of at most ``side`` pixels."""
    scale = min(1.0, side / max(pixels.shape[:2]))
    size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    return jpeg_url(np.asarray(small, np.uint8), _QUALITY)


def image_name(found: Analysis, rank: int) -> str:
    """Return the file name of an image, else its id."""
    names = found.truth.file_names
    return (names[rank] if names else None) or f"image id {found.truth.image_ids[rank]}"


def _rows(columns: Any, rows: Ints, scores: Any, kinds: Sequence[str], size: Size) -> list[DrawnRow]:
    """Return objects or detections as rows of a gallery."""
    shown = []
    for row, kind in zip(rows.tolist(), kinds, strict=True):
        x, y, width, height = (round(float(value), 1) for value in columns.boxes[row])
        path = "" if columns.segmentations is None else _outline(columns.segmentations[row], size)
        shown.append((x, y, width, height, int(columns.categories[row]), round(float(scores[row]), 3), kind, path))
    return shown


def _outline(segmentation: Any, size: Size) -> str:
    from pycocotools import mask as coco_mask

    return mask_outline(coco_mask.decode(rle.to_rle(segmentation, size)), _FLAT)


def _extent(*boxes: Any) -> Size:
    """Return a size that contains all boxes, for an image of unknown size."""
    corners = np.concatenate([one[:, :2] + one[:, 2:] for one in boxes] + [np.ones((1, 2))])
    return int(np.ceil(corners[:, 1].max())), int(np.ceil(corners[:, 0].max()))
