"""What a training config may hold, and the parts it is built into."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from tldet.config import Config, Part, build, build_settings, check
from tldet.data.coco import CocoDataset
from tldet.data.folder import ImageFolderDataset
from tldet.data.loader import LoaderSettings, eval_batches
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.settings import TrainSettings
from tldet.errors import ConfigError
from tldet.evaluation.coco import CocoEvaluator
from tldet.evaluation.report import CocoResult
from tldet.models.classifier import ClassifierSettings
from tldet.models.detector import Detector, Preprocess
from tldet.registry import BACKBONES, DATASETS, HEADS, HOOKS, NECKS, OPTIMIZERS, TRANSFORMS


@dataclass(frozen=True)
class EvalSettings:
    """The ``evaluation`` section of a config.

    Attributes:
        type: what is compared: boxes or masks.
        engine: "fast" (hotcoco) or "pycocotools"; the numbers are the same.
    """

    type: Literal["bbox", "segm"] = "bbox"
    engine: Literal["fast", "pycocotools"] = "fast"


COMMON = {
    "model.backbone": Part(BACKBONES),
    "model.preprocess": Part(Preprocess, required=False),
    "data.train": Part(DATASETS, supplied=("seed",)),
    "data.train.transforms.*": Part(TRANSFORMS),
    "data.val": Part(DATASETS, supplied=("seed",), required=False),
    "data.val.transforms.*": Part(TRANSFORMS),
    "data.loader": Part(LoaderSettings, required=False),
    "optimizer": Part(OPTIMIZERS),
    "schedule": Part(ScheduleSettings),
    "training": Part(TrainSettings, required=False),
    "hooks.*": Part(HOOKS),
}
SCHEMA = {
    **COMMON,
    "model.neck": Part(NECKS, supplied=("in_channels", "in_strides")),
    "model.head": Part(HEADS, supplied=("in_channels", "strides")),
    "data.test": Part(DATASETS, supplied=("seed",), required=False),
    "data.test.transforms.*": Part(TRANSFORMS),
    "evaluation": Part(EvalSettings, required=False),
}
PRETRAIN_SCHEMA = {**COMMON, "model.classifier": Part(ClassifierSettings, required=False)}


@dataclass
class Settings:
    """The sections that are plain settings."""

    loader: LoaderSettings
    schedule: ScheduleSettings
    training: TrainSettings
    evaluation: EvalSettings


def checked_settings(config: Config, schema: Mapping[str, Part] = SCHEMA) -> Settings:
    """Check every key of ``config``; then its plain sections.

    Args:
        config: as loaded.
        schema: what it may hold: a detector's training, or ``PRETRAIN_SCHEMA``.

    Raises:
        ConfigError: a key or value is wrong.
    """
    check(config, schema)
    return Settings(
        build_settings(LoaderSettings, config.get("data.loader") or {}),
        build_settings(ScheduleSettings, config["schedule"]),
        build_settings(TrainSettings, config.get("training") or {}),
        build_settings(EvalSettings, config.get("evaluation") or {}),
    )


def build_dataset(section: Mapping[str, Any], seed: int, classes: tuple[str, ...] | None = None) -> CocoDataset:
    """A data set whose pictures are all there."""
    given = dict(section)
    if classes is not None:
        given["classes"] = list(classes)
    dataset = build(DATASETS, given, seed=seed)
    if isinstance(dataset, ImageFolderDataset):
        raise ConfigError(f"data: {given['type']} has whole pictures of a class, no boxes: use `tldet pretrain`")
    dataset.check_images()
    return cast(CocoDataset, dataset)


def check_class_count(config: Config, dataset: CocoDataset) -> None:
    """The head must have as many classes as the data."""
    stated, found = config.get("model.head.num_classes", 80), len(dataset.class_names)
    if stated != found:
        names = ", ".join(dataset.class_names[:5]) + (", ..." if found > 5 else "")
        raise ConfigError(
            f"model.head.num_classes: is {stated} (in {config.origin('model.head.num_classes')}), but "
            f"{dataset.index.path} has {found} classes ({names}): set it to {found}"
        )


def pick_device(name: str = "auto") -> torch.device:
    """The device of a name; ``auto`` takes a GPU where there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name}: {str(error).splitlines()[0]}") from None
    return device


class Validation:
    """Losses and COCO numbers of a model on a data set, from one forward pass a batch.

    Args:
        dataset: what is measured on.
        loader: batch size and workers.
        settings: what is compared, and by which engine.
        losses: compute the losses too.
    """

    def __init__(
        self, dataset: CocoDataset, loader: LoaderSettings, settings: EvalSettings, *, losses: bool = True
    ) -> None:
        self.dataset, self.loader, self.losses = dataset, loader, losses
        self.evaluator = CocoEvaluator(
            dataset.index.path,
            category_ids=[None if key < 0 else key for key in dataset.category_ids],
            type=settings.type,
            engine=settings.engine,
        )
        self.result: CocoResult | None = None

    def __call__(self, model: Any) -> dict[str, float]:
        """The twelve numbers, and ``val_loss...`` averaged over the pictures."""
        self.evaluator.reset()
        sums: dict[str, float] = {}
        device = next(model.parameters()).device
        pictures = 0
        for batch in eval_batches(self.dataset, self.loader.eval_batch_size, workers=self.loader.workers):
            losses = self._take(model, batch.to(device))
            pictures += len(batch)
            for name, value in losses.items():
                sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + float(value) * len(batch)
        self.result = self.evaluator.compute()
        means = {name: value / max(pictures, 1) for name, value in sums.items()}
        return {**self.result.numbers(), **({"val_loss": sum(means.values()), **means} if means else {})}

    def _take(self, model: Detector, batch: Any) -> dict[str, Any]:
        losses, found = model.loss_and_predict(batch) if self.losses else ({}, model.predict(batch))
        for image_id, one in zip(batch.image_ids, found, strict=True):
            self.evaluator.update(image_id, one)
        return losses


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
