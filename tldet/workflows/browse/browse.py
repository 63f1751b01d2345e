"""``tldet browse``: images of a split with labels, augmented images, detections and statistics."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.data.dataset import CocoDataset
from tldet.data.loader import SampleKey
from tldet.data.split_paths import find_splits
from tldet.errors import DataError
from tldet.inference.loading import load
from tldet.runtime.images import fitted_size, resize_to
from tldet.structures.image import ImageArray
from tldet.structures.target import Target
from tldet.system.output import write_text
from tldet.system.output_checks import check_outputs
from tldet.text import counted
from tldet.visualize.page.document import Section, asset, document
from tldet.visualize.page.images import jpeg_url, mask_outline
from tldet.visualize.page.tables import Table
from tldet.visualize.page.views import View, ViewedImage, ViewRow, views_gallery
from tldet.workflows.browse.request import BrowseRequest
from tldet.workflows.browse.statistics import class_table, plots
from tldet.workflows.requests import takes
from tldet.workflows.training.choose import choose_for
from tldet.workflows.training.recipes import load_recipe, split_transforms
from tldet.workflows.training.request import DEFAULT_MODEL
from tldet.workflows.training.run_options import Length

log = logging.getLogger(__name__)
_SHORT, _LONG = 320, 480  # largest short and long side of an image on the page, pixels
_QUALITY = 80  # JPEG quality
_LEAST_SCORE = 0.05  # score threshold of the detections on the page


@dataclass(frozen=True)
class BrowseReport:
    """Counts of a page.

    Attributes:
        path: the page.
        shown: number of images on the page.
        images: number of images of the split.
        objects: number of objects of the split.
    """

    path: Path
    shown: int
    images: int
    objects: int


@takes(BrowseRequest)
def browse(request: BrowseRequest) -> BrowseReport:
    """Write an HTML page with the images, labels and statistics of a dataset.

    Raises:
        TldetError: the data, a transform or the checkpoint is invalid, or the page cannot be written.
    """
    path = Path(request.html)
    check_outputs([path], [request.data, request.model], overwrite=request.overwrite)
    plain = _dataset(request, ())
    plain.check_images()  # skips unusable images
    index = plain.index
    augmented = None
    if request.augmented:
        augmented = _dataset(request, _transforms(request, plain))
        augmented.positions = plain.positions
    detector = None if request.model is None else load(request.model, device=request.device)
    classes = [*index.class_names, *(n for n in getattr(detector, "class_names", ()) if n not in index.class_names)]
    images = [_viewed(plain, augmented, detector, position, classes) for position in _positions(len(plain), request)]
    objects = int((~index.crowd).sum())
    threshold = None if detector is None else request.score
    sections = [
        Section("Statistics", tables=[_overview(plain), class_table(index)], plots=plots(index)),
        Section("Images", html=views_gallery(images, classes, threshold)),
    ]
    subtitle = f"{request.split} of {request.data}: {counted(len(plain), 'image')}, {counted(objects, 'object')}"
    write_text(path, document(f"Dataset {Path(request.data).name}", subtitle, sections, script=asset("views.js")))
    report = BrowseReport(path, len(images), len(plain), objects)
    if request.console is not None:
        shown = f"saved to {path} ({report.shown:,} of {counted(report.images, 'image')})"
        request.console.print(shown, markup=False, highlight=False)
    return report


def _dataset(request: BrowseRequest, transforms: Sequence[dict[str, Any]]) -> CocoDataset:
    """Build the dataset of a split; annotations in other formats are converted to the cache."""
    splits = find_splits(request.data, None, None, request.images, None, request.source_options())
    split = splits.get(request.split)
    if split is None:
        raise DataError(
            f"{request.data}: has no {request.split} split (splits: {', '.join(splits)}); choose one with --split"
        )
    masks = bool(CocoDataset(str(split.annotations), str(split.images)).index.has_segmentation().any())
    given = (str(split.annotations), str(split.images), transforms)
    return CocoDataset(*given, masks=masks, seed=request.seed, on_bad_image="skip")


def _transforms(request: BrowseRequest, plain: CocoDataset) -> list[dict[str, Any]]:
    """Return the user-specified transforms, or those of the default recipe, with the input size of finetune."""
    recipe = load_recipe(DEFAULT_MODEL)
    options = {"training.device": "cpu"}  # avoids measuring a batch size, which the input size does not depend on
    choices = choose_for(recipe, plain.index, options, Length("epochs", 1), None, request.augment)
    return split_transforms(recipe, choices.short, choices.long, choices.augment)["train"]


def _positions(count: int, request: BrowseRequest) -> list[int]:
    """Sample the images to show, in the order of the dataset."""
    drawn = np.random.default_rng(request.seed).permutation(count)[: request.count]
    return sorted(drawn.tolist())


def _overview(plain: CocoDataset) -> Table:
    index = plain.index
    heights, widths = (np.median(plain.sizes[:, axis]) for axis in (0, 1))
    empty = int((np.diff(index.offsets)[plain.positions] == 0).sum())
    rows: list[list[Any]] = [
        ["images", len(plain)],
        ["images without objects", empty],
        ["objects", int((~index.crowd).sum())],
        ["crowd regions", int(index.crowd.sum())],
        ["classes", len(index.class_names)],
        ["median width x height (px)", f"{widths:.0f} x {heights:.0f}"],
    ]
    return Table("overview", "Overview", ["", "value"], rows)


def _viewed(
    plain: CocoDataset, augmented: CocoDataset | None, detector: Any, position: int, classes: Sequence[str]
) -> ViewedImage:
    """Return the views of an image: with labels, after augmentation, and with detections."""
    image, target = plain.load(position)
    views = [_view("labels", image, _rows(target))]
    if augmented is not None:
        sample = augmented[SampleKey(0, position, 0)]
        pixels = sample.image.permute(1, 2, 0).numpy()
        views.append(_view("augmented", pixels, _rows(sample.target)))
    if detector is not None:
        views.append(_view("detections", image, _predicted(detector, image, classes)))
    return ViewedImage(plain.file_names[int(plain.positions[position])], views)


def _view(title: str, image: ImageArray, rows: Sequence[ViewRow]) -> View:
    """Return an image with its boxes, scaled down for the page; boxes stay in pixels of the original image."""
    height, width = image.shape[:2]
    size = fitted_size((height, width), _SHORT, _LONG)
    small = image if size[0] >= height else resize_to(image, size)
    return View(title, width, height, jpeg_url(small, _QUALITY), rows)


def _rows(target: Target) -> list[ViewRow]:
    boxes, labels, ignore = (np.asarray(one) for one in (target.boxes, target.labels, target.ignore))
    masks = [None] * len(boxes) if target.masks is None else list(np.asarray(target.masks))
    return [_row(boxes[row], int(labels[row]), -1.0, bool(ignore[row]), masks[row]) for row in range(len(boxes))]


def _predicted(detector: Any, image: ImageArray, classes: Sequence[str]) -> list[ViewRow]:
    found = detector.predict([image], score=_LEAST_SCORE)[0]
    labels = [classes.index(detector.class_names[label]) for label in found.labels.tolist()]
    boxes = np.asarray(found.boxes.cpu())
    return [
        _row(box, label, float(score), ignored=False, mask=None)
        for box, label, score in zip(boxes, labels, found.scores.tolist(), strict=True)
    ]


def _row(box: NDArray[Any], label: int, score: float, ignored: bool, mask: NDArray[np.uint8] | None) -> ViewRow:
    x0, y0, x1, y1 = (round(float(value), 1) for value in box)
    outline = "" if mask is None else mask_outline(mask)
    return x0, y0, round(x1 - x0, 1), round(y1 - y0, 1), label, round(score, 3), ignored, outline
