"""Checks that the model of a config fits the data."""

from __future__ import annotations

import logging

from tldet.config import Config
from tldet.errors import ConfigError, DataError
from tldet.models.detector import Detector
from tldet.text import counted
from tldet.workflows.training.datasets import AnyDataset

log = logging.getLogger(__name__)


def check_class_count(config: Config, dataset: AnyDataset) -> None:
    """Require as many classes in the head as in the data.

    Raises:
        ConfigError: the numbers differ.
    """
    stated, found = config.get("model.head.num_classes", 80), len(dataset.class_names)
    if stated != found:
        names = ", ".join(dataset.class_names[:5]) + (", ..." if found > 5 else "")
        raise ConfigError(
            f"model.head.num_classes: is {stated} (in {config.origin('model.head.num_classes')}), but "
            f"{dataset.index.path} has {counted(found, 'class', 'classes')} ({names}): set it to {found}"
        )


def require_masks(config: Config, detector: Detector, train: AnyDataset) -> None:
    """Check that masks are loaded for a mask model, and evaluated for a mask model only.

    Raises:
        ConfigError: a config key does not fit the model.
        DataError: no object has a segmentation.
    """
    head = config.get("model.head.type")
    if not detector.predicts_masks:
        if config.get("evaluation.type") == "segm":
            origin = config.origin("evaluation.type")
            raise ConfigError(
                f"evaluation.type: is 'segm' (in {origin}), but {head} predicts no masks; set it to 'bbox'"
            )
        return
    for part in ("train", "val"):
        key = f"data.{part}.masks"
        if config.get(f"data.{part}") and not config.get(key):
            raise ConfigError(f"{key}: must be True for {head}, which predicts masks (in {config.origin(key)})")
    objects = int((~train.index.crowd).sum())
    without = objects - int((train.has_mask() & ~train.index.crowd).sum())
    if objects and without == objects:
        raise DataError(
            f"{train.index.path}: none of the {objects:,} objects has a segmentation, which {head} needs; add polygons "
            "or RLEs, or choose a box detector such as faster_rcnn_lite0"
        )
    if without:
        path = train.index.path
        log.warning(
            "%s: %d of %s without a segmentation; not used for the mask loss", path, without, counted(objects, "object")
        )
