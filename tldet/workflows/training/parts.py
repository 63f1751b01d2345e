"""What a training config may hold, and the parts it is built into."""

from __future__ import annotations

import inspect
import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch

from tldet.config import ComponentType, Config, build, build_settings, check
from tldet.config.build import check_interface
from tldet.config.check import parameters
from tldet.data.coco import CocoDataset
from tldet.data.custom_dataset import CustomDataset, DatasetOptions, SubsetSettings, restrict
from tldet.data.folder import ImageFolderDataset
from tldet.data.loader import LoaderSettings, eval_batches
from tldet.engine.regularization import L2SPSettings
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.state import TrainSettings
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.evaluation.coco import CocoEvaluator
from tldet.evaluation.columns import GroundTruth, Type
from tldet.evaluation.report import METRICS, CocoResult
from tldet.evaluation.targets import ground_truth_of
from tldet.inference.runtimes.exported import ExportedDetector
from tldet.models.backbones import BackboneOptions
from tldet.models.classifier import ClassifierSettings
from tldet.models.detector import Detector, Preprocess
from tldet.plugins import lookup
from tldet.registry import BACKBONES, DATASETS, HEADS, HOOKS, NECKS, OPTIMIZERS, TRANSFORMS
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray
from tldet.system.out_of_memory import Smaller
from tldet.text import counted
from tldet.transfer.class_match import MatchSettings, few
from tldet.transfer.freeze import FreezeSettings
from tldet.transfer.teacher import TeacherSettings
from tldet.visualize.drawing import draw

log = logging.getLogger(__name__)
DRAWN_SCORE = 0.3  # score threshold of detections in drawn images


@dataclass(frozen=True)
class EvalSettings:
    """The ``evaluation`` section of a config.

    Attributes:
        type: what is compared: boxes, or masks and, beside them, boxes.
        engine: "fast" (hotcoco) or "pycocotools"; the numbers are the same.
    """

    type: Literal["bbox", "segm"] = "bbox"
    engine: Literal["fast", "pycocotools"] = "fast"


@dataclass(frozen=True)
class InitialWeights:
    """The ``model.weights`` section of a config: a whole detector that training starts from.

    Attributes:
        source: ``torchvision:FasterRCNN_ResNet50_FPN_Weights.COCO_V1``, a URL with its hash, or the file of a tldet,
            mmdet or torchvision detector. The backbone's own ``weights`` are then not fetched.
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
    """The sections that are plain settings."""

    loader: LoaderSettings
    schedule: ScheduleSettings
    training: TrainSettings
    evaluation: EvalSettings
    freeze: FreezeSettings
    l2_sp: L2SPSettings | None
    match: MatchSettings
    distill: TeacherSettings | None


def checked_settings(config: Config, schema: Mapping[str, ComponentType] = SCHEMA) -> Settings:
    """Check every key of ``config``; then its plain sections.

    Args:
        config: as loaded.
        schema: what it may hold: a detector's training, or ``PRETRAIN_SCHEMA``.

    Raises:
        ConfigError: a key or value is wrong.
    """
    check(config, schema)
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
    if settings.schedule.minutes is not None and settings.freeze.thaws:
        raise ConfigError(
            "freeze: what learns later makes later steps slower, and schedule.minutes measures the first ones: "
            "give the length in epochs or steps"
        )
    return settings


def with_bad_image(config: Mapping[str, Any], value: str | None) -> dict[str, Any]:
    """Return a config with ``on_bad_image`` set in every split; None changes nothing."""
    data = config.get("data")
    if value is None or not isinstance(data, Mapping):
        return dict(config)
    splits = {key: one for key, one in data.items() if isinstance(one, Mapping) and "annotations" in one}
    return {**config, "data": {**data, **{key: {**one, "on_bad_image": value} for key, one in splits.items()}}}


AnyDataset = CocoDataset | CustomDataset


def build_dataset(
    section: Mapping[str, Any], seed: int, classes: tuple[str, ...] | None = None, *, path: str = ""
) -> AnyDataset:
    """Build the dataset of a config section with key ``path``. Images are not checked: see :func:`check_images`.

    Args:
        section: the section.
        seed: random seed of augmentation.
        classes: class names of the model; None takes those of the dataset.
        path: dotted path of the section, for messages.

    Raises:
        ConfigError: it is no dataset of images with objects.
        DataError: its annotations cannot be used.
    """
    given = dict(section)
    subset = given.pop("subset", None)
    target = lookup(DATASETS, given["type"])
    if inspect.isclass(target) and issubclass(target, ImageFolderDataset):
        raise ConfigError(f"{path}.type: {given['type']} has whole images of a class, no boxes: use `tldet pretrain`")
    dataset: AnyDataset
    if inspect.isclass(target) and issubclass(target, CocoDataset):
        if classes is not None:
            given["classes"] = list(classes)
        dataset = build(DATASETS, given, path, seed=seed)
    else:
        dataset = _custom(given, target, seed, classes, path)
    if subset is not None:
        restrict(dataset, build_settings(SubsetSettings, subset))
    return dataset


def _custom(
    section: Mapping[str, Any], target: Any, seed: int, classes: tuple[str, ...] | None, path: str
) -> CustomDataset:
    """Build a dataset from outside tldet: it gets its own keys, the loader those of :class:`DatasetOptions`."""
    known = {} if target is None else parameters(target)
    own = {key: value for key, value in section.items() if key != "transforms" and (key != "masks" or key in known)}
    supplied = {"seed": seed} if "seed" in known and "seed" not in own else {}
    dataset = build(DATASETS, own, path, **supplied)
    name = f"{section['type']} ({path})" if path else str(section["type"])
    check_interface(dataset, "detection dataset", f"{path}: dataset {section['type']}" if path else name)
    options = DatasetOptions(section.get("transforms") or (), bool(section.get("masks")))
    return CustomDataset(dataset, options, name=name, classes=classes, seed=seed)


def ground_truth(dataset: AnyDataset, kind: Type) -> GroundTruth | Path:
    """Return what an evaluator compares detections on a dataset with: its targets, or its COCO JSON."""
    if isinstance(dataset, CocoDataset):
        return dataset.index.path
    whole = dataset.original
    return ground_truth_of(
        dataset.targets(),
        whole.class_names,
        sizes=[(height, width) for height, width in dataset.sizes.tolist()],
        category_ids=whole.category_ids,
        type=kind,
        name=dataset.name,
    )


def check_images(*datasets: AnyDataset | None) -> None:
    """Check the image files of all splits, so that all bad images are listed at once.

    Raises:
        DataError: images cannot be used; the message names the first one of each split.
    """
    problems = []
    for dataset in datasets:
        try:
            if dataset is not None:
                dataset.check_images()
        except DataError as error:
            problems.append(str(error))
    if problems:
        raise DataError("; ".join(problems))


def check_class_count(config: Config, dataset: AnyDataset) -> None:
    """The head must have as many classes as the data."""
    stated, found = config.get("model.head.num_classes", 80), len(dataset.class_names)
    if stated != found:
        names = ", ".join(dataset.class_names[:5]) + (", ..." if found > 5 else "")
        raise ConfigError(
            f"model.head.num_classes: is {stated} (in {config.origin('model.head.num_classes')}), but "
            f"{dataset.index.path} has {counted(found, 'class', 'classes')} ({names}): set it to {found}"
        )


def check_masks(config: Config, detector: Detector, train: AnyDataset) -> None:
    """A model with a mask branch needs masks to learn from, and only such a model has masks to measure.

    Raises:
        ConfigError: a key of the config does not go with the model.
        DataError: no object of the data has a segmentation.
    """
    head = config.get("model.head.type")
    if not detector.predicts_masks:
        if config.get("evaluation.type") == "segm":
            where = config.origin("evaluation.type")
            raise ConfigError(f"evaluation.type: is 'segm' (in {where}), but {head} has no masks: set it to 'bbox'")
        return
    for part in ("train", "val"):
        key = f"data.{part}.masks"
        if config.get(f"data.{part}") and not config.get(key):
            raise ConfigError(f"{key}: must be True for {head}, which learns masks (in {config.origin(key)})")
    objects = int((~train.index.crowd).sum())
    without = objects - int((train.outlined() & ~train.index.crowd).sum())
    if objects and without == objects:
        raise DataError(
            f"{train.index.path}: none of its objects ({objects:,}) has a segmentation, which {head} is trained on: "
            "add polygons or RLEs, or choose a model of boxes such as faster_rcnn_lite0"
        )
    if without:
        path = train.index.path
        log.warning(
            "%s: %d of %s without a segmentation: no masks to train on", path, without, counted(objects, "object")
        )


def check_objects(dataset: AnyDataset, consequence: str) -> None:
    """Warn if a split has no object to evaluate on, not counting crowd regions and classes not annotated on an image.

    Raises:
        DataError: the split has objects, but only of classes that the model does not have.
    """
    index = dataset.index
    images = np.repeat(np.arange(len(index)), np.diff(index.offsets))
    used = np.isin(images, dataset.positions)  # skipped images are not evaluated
    judged = used & ~index.crowd
    if index.labeled is not None:
        judged = judged & index.labeled[images, index.labels]
    if judged.any():
        return
    whole = dataset.original
    there = [whole.class_names[label] for label in np.unique(whole.labels[~whole.crowd])]
    if foreign := [name for name in there if name not in index.class_names]:
        raise DataError(f"{index.path}: no object to evaluate on: the model has none of the classes ({few(foreign)})")
    annotations = f"{counted(int(used.sum()), 'annotation')}: crowd regions or classes not annotated on the image"
    what = annotations if used.any() else "no annotations"
    log.warning("%s: no object to evaluate on (%s); %s", index.path, what, consequence)


class Validation:
    """Losses and COCO numbers of a model on a data set, from one forward pass a batch.

    Args:
        dataset: what is measured on.
        loader: batch size and workers.
        settings: what is compared, and by which engine.
        losses: compute the losses too.
    """

    def __init__(
        self, dataset: AnyDataset, loader: LoaderSettings, settings: EvalSettings, *, losses: bool = True
    ) -> None:
        self.dataset, self.loader, self.losses = dataset, loader, losses
        ids = [None if key < 0 else key for key in dataset.category_ids]
        kinds: list[Type] = ["segm", "bbox"] if settings.type == "segm" else ["bbox"]
        self.evaluators = [
            CocoEvaluator(ground_truth(dataset, kind), category_ids=ids, type=kind, engine=settings.engine, quiet=True)
            for kind in kinds
        ]
        self.result: CocoResult | None = None
        self.drawn = 0  # number of images to draw
        self.drawings: list[ImageArray] = []

    @property
    def headline(self) -> tuple[str, ...]:
        """The metrics of a short line."""
        return ("AP", "AP50") + (("bbox_AP",) if len(self.evaluators) > 1 else ())

    @property
    def names(self) -> tuple[str, ...]:
        """The numbers that say how good a model is: larger is better."""
        return METRICS + tuple(f"bbox_{name}" for name in METRICS if len(self.evaluators) > 1)

    def __call__(self, model: Any) -> dict[str, float]:
        """The twelve numbers, with masks the boxes' as ``bbox_AP...``, and ``val_loss...`` averaged over images.

        Raises:
            DataError: an image cannot be read.
            TrainingError: a score or box that the model gives is not finite.
        """
        self.drawings = []
        for evaluator in self.evaluators:
            evaluator.reset()
        sums: dict[str, float] = {}
        device = model.device if isinstance(model, ExportedDetector) else next(model.parameters()).device
        images, smaller = 0, Smaller()
        workers, pin = self.loader.worker_count(device), device.type == "cuda"

        def found(batch: Any) -> Any:
            losses, detections = model.loss_and_predict(batch) if self.losses else ({}, model.predict(batch))
            values = torch.stack(list(losses.values())).tolist() if losses else []
            return dict(zip(losses, values, strict=True)), [one.to("cpu") for one in detections]

        for loaded in eval_batches(self.dataset, self.loader.eval_batch_size, workers=workers, pin=pin):
            for batch, (losses, detections) in smaller(found, loaded, device):
                self._take(batch, detections)
                images += len(batch)
                for name, value in losses.items():
                    sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + value * len(batch)
        self.result, *boxes = [evaluator.compute() for evaluator in self.evaluators]
        self.result.bbox = boxes[0] if boxes else None
        numbers = {f"bbox_{name}": value for result in boxes for name, value in result.numbers().items()}
        means = {name: value / max(images, 1) for name, value in sums.items()}
        return {**self.result.numbers(), **numbers, **({"val_loss": sum(means.values()), **means} if means else {})}

    def _take(self, batch: Any, found: Sequence[Detections]) -> None:
        for image_id, one in zip(batch.image_ids, found, strict=True):
            if not bool(torch.isfinite(one.scores).all() & torch.isfinite(one.boxes).all()):
                raise TrainingError(
                    f"the model's detections on image {image_id} are not finite: it has diverged, or its number "
                    "format is too narrow; lower optimizer.lr, lengthen schedule.warmup_steps, set training.clip_norm "
                    "or take fp32"
                )
            for evaluator in self.evaluators:
                evaluator.update(image_id, one)
        for row in range(min(self.drawn - len(self.drawings), len(found))):
            self.drawings.append(_drawing(batch, row, found[row]))


def _drawing(batch: Batch, row: int, found: Detections) -> ImageArray:
    """Draw detections on an image of a batch, at the size of the original image."""
    (height, width), (whole_height, whole_width) = batch.sizes[row], batch.original_sizes[row]
    pixels = batch.images[row, :, :height, :width].to("cpu", torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return draw(np.asarray(cv2.resize(pixels, (whole_width, whole_height)), np.uint8), found.above(DRAWN_SCORE))


def versions() -> dict[str, str]:
    """What a result depends on."""
    import torchvision

    import tldet

    return {
        "tldet": tldet.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "torchvision": str(torchvision.__version__),
    }
