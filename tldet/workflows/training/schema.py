"""Keys of a training config, its plain sections, and checks that its model fits the data."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tldet.config import ComponentType, Config, build_settings, validate_config
from tldet.data.settings import DatasetOptions, LoaderSettings
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.state import TrainSettings
from tldet.errors import ConfigError, DataError
from tldet.models.backbones import BackboneOptions
from tldet.models.classifier import ClassifierSettings
from tldet.models.detector import Preprocess
from tldet.registry import BACKBONES, DATASETS, HEADS, HOOKS, NECKS, OPTIMIZERS, TRANSFORMS
from tldet.text import counted
from tldet.transfer.class_match import MatchSettings
from tldet.transfer.freeze import FreezeSettings
from tldet.transfer.l2_sp import L2SPSettings
from tldet.transfer.teacher import TeacherSettings

if TYPE_CHECKING:
    from tldet.models.detector import Detector
    from tldet.workflows.training.datasets import AnyDataset

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalSettings:
    """The ``evaluation`` section of a config.

    Attributes:
        type: "bbox", or "segm" for masks and boxes.
        engine: "fast" (hotcoco) or "pycocotools"; the metrics are equal.
    """

    type: Literal["bbox", "segm"] = "bbox"
    engine: Literal["fast", "pycocotools"] = "fast"


@dataclass(frozen=True)
class InitialWeights:
    """The ``model.weights`` section of a config: detector weights as initial weights.

    Attributes:
        source: ``torchvision:FasterRCNN_ResNet50_FPN_Weights.COCO_V1``, a URL with its hash, or the file of a tldet,
            MMDetection or torchvision detector. The ``weights`` of the backbone are not loaded then.
    """

    source: str


COMMON = {
    "model.backbone": ComponentType(BACKBONES, shared=BackboneOptions),
    "model.preprocess": ComponentType(Preprocess, required=False),
    "data.train": ComponentType(DATASETS, supplied=("seed",), shared=DatasetOptions),
    "data.train.transforms.*": ComponentType(TRANSFORMS),
    "data.val": ComponentType(DATASETS, supplied=("seed",), required=False, shared=DatasetOptions),
    "data.val.transforms.*": ComponentType(TRANSFORMS),
    "data.loader": ComponentType(LoaderSettings, required=False),
    "optimizer": ComponentType(OPTIMIZERS),
    "schedule": ComponentType(ScheduleSettings),
    "training": ComponentType(TrainSettings, required=False),
    "hooks.*": ComponentType(HOOKS),
    "freeze": ComponentType(FreezeSettings, required=False),
    "l2_sp": ComponentType(L2SPSettings, required=False),
}
SCHEMA = {
    **COMMON,
    "model.weights": ComponentType(InitialWeights, required=False),
    "model.neck": ComponentType(NECKS, supplied=("in_channels", "in_strides")),
    "model.head": ComponentType(HEADS, supplied=("in_channels", "strides")),
    "data.test": ComponentType(DATASETS, supplied=("seed",), required=False, shared=DatasetOptions),
    "data.test.transforms.*": ComponentType(TRANSFORMS),
    "evaluation": ComponentType(EvalSettings, required=False),
    "class_match": ComponentType(MatchSettings, required=False),
    "distill": ComponentType(TeacherSettings, required=False),
}
PRETRAIN_SCHEMA = {**COMMON, "model.classifier": ComponentType(ClassifierSettings, required=False)}


@dataclass
class Settings:
    """Sections of a config that are plain settings."""

    loader: LoaderSettings
    schedule: ScheduleSettings
    training: TrainSettings
    evaluation: EvalSettings
    freeze: FreezeSettings
    l2_sp: L2SPSettings | None
    match: MatchSettings
    distill: TeacherSettings | None


def checked_settings(config: Config, schema: Mapping[str, ComponentType] = SCHEMA) -> Settings:
    """Check every key of a config and return its plain sections.

    Args:
        config: the config.
        schema: allowed keys: ``SCHEMA`` for a detector, or ``PRETRAIN_SCHEMA``.

    Raises:
        ConfigError: a key or value is wrong.
    """
    validate_config(config, schema)
    l2_sp, distill = config.get("l2_sp"), config.get("distill")
    settings = Settings(
        build_settings(LoaderSettings, config.get("data.loader") or {}),
        build_settings(ScheduleSettings, config["schedule"]),
        build_settings(TrainSettings, config.get("training") or {}),
        build_settings(EvalSettings, config.get("evaluation") or {}),
        build_settings(FreezeSettings, config.get("freeze") or {}),
        build_settings(L2SPSettings, l2_sp) if l2_sp else None,
        build_settings(MatchSettings, config.get("class_match") or {}),
        build_settings(TeacherSettings, distill) if distill else None,
    )
    if settings.schedule.minutes is not None and settings.freeze.unfreezes:
        raise ConfigError(
            "freeze: with gradual unfreezing, later steps are slower than the first ones, from which schedule.minutes "
            "is converted to steps; specify the length in epochs or steps"
        )
    return settings


def with_bad_image(config: Mapping[str, Any], value: str | None) -> dict[str, Any]:
    """Return a config with ``on_bad_image`` set in every split; None changes nothing."""
    data = config.get("data")
    if value is None or not isinstance(data, Mapping):
        return dict(config)
    splits = {key: one for key, one in data.items() if isinstance(one, Mapping) and "annotations" in one}
    return {**config, "data": {**data, **{key: {**one, "on_bad_image": value} for key, one in splits.items()}}}


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
            f"{train.index.path}: no object has a segmentation, which {head} needs; add polygons "
            "or RLEs, or choose a box detector such as faster_rcnn_lite0"
        )
    if without:
        path = train.index.path
        log.warning(
            "%s: %d of %s without a segmentation; not used for the mask loss", path, without, counted(objects, "object")
        )
