"""Detections of a checkpoint, a run or a results file, with their ground truth and images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.coco.records import name_of
from tldet.engine.logging import LOG_NAME
from tldet.errors import CheckpointError, DataError
from tldet.evaluation.columns import GroundTruth, Results
from tldet.evaluation.loading import load_ground_truth, load_results
from tldet.structures.image import ImageArray
from tldet.system.inputs import is_folder
from tldet.workflows.training.run_folder import BEST_NAME

if TYPE_CHECKING:
    from tldet.workflows.report.request import ReportOptions
    from tldet.workflows.training.datasets import AnyDataset

Reader = Callable[[int], ImageArray | None]


@dataclass(frozen=True)
class DetectionSource:
    """Detections to analyze.

    Attributes:
        name: name in the report.
        truth: ground truth.
        results: detections on its images.
        read: returns the image with an index in ``truth.image_ids`` as (H, W, 3) uint8 RGB; None if not available.
        checkpoint: checkpoint of the detector; None for a results file.
        run: run folder of the checkpoint; None if there is none.
        boxes: ground truth and detections as boxes, if ``truth`` and ``results`` contain masks; else None.
        split: split of the checkpoint's config; "" for other data.
    """

    name: str
    truth: GroundTruth
    results: Results
    read: Reader
    checkpoint: Path | None = None
    run: Path | None = None
    boxes: tuple[GroundTruth, Results] | None = None
    split: str = ""


def of_results(dt: Any, request: ReportOptions) -> DetectionSource:
    """Read a results file."""
    assert request.gt is not None
    truth = load_ground_truth(request.gt, request.type or "bbox")
    return DetectionSource(
        name_of(dt, "detections"), truth, load_results(dt, truth), _folder_reader(truth, request.images)
    )


def of_checkpoint(path: str | Path, request: ReportOptions) -> DetectionSource:
    """Evaluate a checkpoint, or the best checkpoint of a run.

    Raises:
        TldetError: the checkpoint or the data is invalid, or they share no class.
    """
    from tldet.workflows.command_requests import TestRequest
    from tldet.workflows.test import detect

    run = Path(path) if is_folder(path) else None
    checkpoint = Path(path) if run is None else run / BEST_NAME
    if run is not None and not checkpoint.is_file():
        raise CheckpointError(f"{run}: contains no {BEST_NAME}; use the path of a checkpoint")
    found = detect(
        TestRequest(
            checkpoint,
            data=request.data,
            images=request.images,
            format=request.format,
            voc_boxes=request.voc_boxes,
            split=request.split,
            device=request.device,
            precision=request.precision,
            console=request.console,
        )
    )
    both = [one.added() for one in found.evaluators]
    if request.type is not None:
        both = [one for one in both if one[0].type == request.type]
        if not both:
            raise DataError(f"{path}: predicts no masks; use --type bbox")
    run = run or (checkpoint.parent if (checkpoint.parent / LOG_NAME).is_file() else None)
    boxes = both[1] if len(both) > 1 else None
    read, split = dataset_reader(both[0][0], found.dataset), _split(checkpoint, request)
    return DetectionSource(str(path), *both[0], read, checkpoint, run, boxes, split)


def _split(checkpoint: Path, request: ReportOptions) -> str:
    """Return the split of the checkpoint's config that is evaluated; "" for other data."""
    from tldet.transfer.provenance import checkpoint_outline
    from tldet.workflows.evaluation_data import default_split

    if request.data is not None:
        return ""
    return request.split or default_split(checkpoint_outline(checkpoint)["config"].get("data") or {})


def dataset_reader(truth: GroundTruth, dataset: AnyDataset) -> Reader:
    """Return the reader of the images of a dataset."""
    from tldet.data.dataset import CocoDataset

    ids = dataset.index.image_ids[dataset.positions].tolist()
    indices = {image_id: index for index, image_id in enumerate(ids)}

    def read(rank: int) -> ImageArray | None:
        index = indices[truth.image_ids[rank]]
        if isinstance(dataset, CocoDataset):
            return dataset.load(index)[0]
        return dataset.dataset.load(int(dataset.positions[index]))[0]

    return read


def _folder_reader(truth: GroundTruth, images: str | Path | None) -> Reader:
    """Return the reader of an image folder; it returns None for missing and damaged images."""

    def read(rank: int) -> ImageArray | None:
        from tldet.data.images import read_image

        name = truth.file_names[rank] if truth.file_names else None
        if images is None or name is None:
            return None
        try:
            return read_image(Path(images) / name)
        except DataError:
            return None

    if images is not None and not is_folder(images):
        raise DataError(f"{images}: no such image directory")
    return read
