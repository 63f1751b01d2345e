"""Data of a study: COCO JSON files, or a dataset from outside tldet."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tldet.config import Config, parse_options
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.split_paths import resolve_layout
from tldet.data.subsets import write_subset
from tldet.errors import ConfigError, DataError
from tldet.evaluation.columns import GroundTruth, Type
from tldet.evaluation.loading import load_ground_truth
from tldet.system.inputs import real_path
from tldet.transfer.downloads import file_hash
from tldet.transfer.provenance import checkpoint_outline
from tldet.workflows.study.job import Job, exact
from tldet.workflows.training.custom_data import own_index, with_own_data
from tldet.workflows.training.parts import build_dataset, ground_truth
from tldet.workflows.training.recipes import has_own_data
from tldet.workflows.training.request import DEFAULT_MODEL
from tldet.workflows.training.run_options import Length, LengthOptions

SPLIT_SEED = 0  # of a JSON that is divided into training and validation: the same for every run


@dataclass(frozen=True)
class StudyConfig:
    """Settings that all runs of a study share.

    Attributes:
        data: see :func:`tldet.workflows.training.finetune.finetune`, as for all others but ``out`` and ``seeds``.
        out: output directory of the study.
        train: training annotations.
        val: validation annotations.
        images: image folder of both splits.
        on_bad_image: "error" or "skip" for images that cannot be used, in both splits; None means "error".
        model: a recipe.
        epochs: number of epochs of each run over its own images.
        minutes: training time of each run, converted to a number of steps once per variant.
        steps: number of steps of each run.
        seeds: seeds of the runs and of their training subsets.
        cfg_options: config overrides ``a.b=c`` for every run.
    """

    data: str | Path | None
    out: Path
    train: str | Path | None = None
    val: str | Path | None = None
    images: str | Path | None = None
    on_bad_image: str | None = None
    model: str = DEFAULT_MODEL
    epochs: int | None = None
    minutes: float | None = None
    steps: int | None = None
    seeds: Sequence[int] = (0, 1, 2)
    cfg_options: Sequence[str] = ()

    @property
    def length(self) -> Length | None:
        """The user-specified length of each run."""
        return LengthOptions(epochs=self.epochs, minutes=self.minutes, steps=self.steps).length

    def bad_images(self) -> dict[str, str]:
        """Return ``on_bad_image`` as keyword argument of a run; empty by default."""
        return {"on_bad_image": self.on_bad_image} if self.on_bad_image else {}


class StudyData(Protocol):
    """Data that all runs of a study share."""

    @property
    def index(self) -> AnnotationIndex:
        """Annotations of the training images."""
        ...

    @property
    def val(self) -> tuple[str, str]:
        """Annotations and image folder of the validation images; both empty for a dataset from outside tldet."""
        ...

    def call(self) -> dict[str, Any]:
        """Return the keyword arguments of ``finetune`` that name the data."""
        ...

    def subset(self, fraction: float, seed: int) -> str:
        """Return the config option that trains on a fraction of the images."""
        ...

    def hashes(self) -> Mapping[str, str]:
        """Return hashes of training and validation annotations."""
        ...

    def truth(self) -> GroundTruth:
        """Return the ground truth of the validation images."""
        ...


@dataclass(frozen=True)
class JsonData:
    """COCO JSON files."""

    config: StudyConfig
    train: Split
    validation: Split
    index: AnnotationIndex

    @classmethod
    def of(cls, config: StudyConfig) -> JsonData:
        """Find the splits.

        Raises:
            DataError: they are not found, or there is nothing to evaluate on.
        """
        layout = resolve_layout(config.data, config.train, config.val, config.images, config.out, SPLIT_SEED)
        assert layout.val is not None  # a single JSON is split
        if AnnotationIndex.load(layout.val.annotations).crowd.all():
            raise DataError(f"{layout.val.annotations}: holds no object to measure on")
        return cls(config, layout.train, layout.val, AnnotationIndex.load(layout.train.annotations))

    @property
    def val(self) -> tuple[str, str]:
        """See :class:`StudyData`."""
        return _text(self.validation.annotations), _text(self.validation.images)

    def call(self) -> dict[str, Any]:
        """See :class:`StudyData`."""
        train, val, data = self.train, self.validation, self.config.data
        return {
            "data": None if data is None else _text(Path(data)),
            "train": _text(train.annotations),
            "val": _text(val.annotations),
            "images": _text(train.images) if train.images == val.images else self.config.images,
        }

    def subset(self, fraction: float, seed: int) -> str:
        """See :class:`StudyData`; the subset is written as a JSON, the same for the same data."""
        path = self.config.out / "data" / f"fraction{exact(fraction)}_seed{seed}.json"
        write_subset(self.train, fraction, seed, path)
        return f"data.train.annotations={_text(path)}"

    def hashes(self) -> Mapping[str, str]:
        """See :class:`StudyData`."""
        return {"train": file_hash(self.train.annotations), "val": file_hash(self.validation.annotations)}

    def truth(self) -> GroundTruth:
        """See :class:`StudyData`."""
        return load_ground_truth(self.validation.annotations, "bbox")


@dataclass(frozen=True)
class OwnData:
    """A dataset from outside tldet, named by the recipe."""

    config: StudyConfig
    recipe: Config
    index: AnnotationIndex
    validation: Any  # its dataset
    val: tuple[str, str] = ("", "")

    def call(self) -> dict[str, Any]:
        """See :class:`StudyData`."""
        config = self.config
        given = {"data": config.data, "train": config.train, "val": config.val, "images": config.images}
        return {name: None if path is None else str(path) for name, path in given.items()}

    def subset(self, fraction: float, seed: int) -> str:
        """See :class:`StudyData`."""
        return f"data.train.subset={{'fraction': {fraction!r}, 'seed': {seed}}}"

    def hashes(self) -> Mapping[str, str]:
        """See :class:`StudyData`."""
        return {"train": _fingerprint(self.index), "val": _fingerprint(self.validation.original)}

    def truth(self) -> GroundTruth:
        """See :class:`StudyData`."""
        truth = ground_truth(self.validation, "bbox")
        assert isinstance(truth, GroundTruth)
        return truth


def own_study_data(recipe: Config, config: StudyConfig) -> OwnData:
    """Build the datasets that a recipe names.

    Raises:
        ConfigError: it names no dataset for validation.
        DataError: there is nothing to evaluate on.
    """
    paths = {"--data": config.data, "--train": config.train, "--val": config.val, "--images": config.images}
    recipe = with_own_data(recipe, paths, parse_options(config.cfg_options))
    if not has_own_data(recipe) or not recipe.get("data.val"):
        raise ConfigError(f"{config.model}: names no data.val; a study needs a dataset for validation")
    index = own_index(recipe, SPLIT_SEED)
    validation = build_dataset(recipe["data"]["val"], SPLIT_SEED, index.class_names, path="data.val")
    if validation.index.crowd.all():
        raise DataError(f"{validation.index.path}: holds no object to measure on")
    return OwnData(config, recipe, index, validation)


def truth_of(job: Job, kind: Type, checkpoint: str | Path) -> GroundTruth:
    """Return the ground truth that a finished run was evaluated on."""
    if job.val[0]:
        return load_ground_truth(job.val[0], kind)
    found = checkpoint_outline(Path(checkpoint))
    dataset = build_dataset(found["config"]["data"]["val"], 0, tuple(found["meta"]["class_names"]), path="data.val")
    truth = ground_truth(dataset, kind)
    assert isinstance(truth, GroundTruth)
    return truth


def _fingerprint(index: AnnotationIndex) -> str:
    digest = hashlib.sha256(repr(index.class_names).encode())
    for column in (index.image_ids, index.sizes, index.offsets, index.boxes, index.labels, index.crowd):
        digest.update(column.tobytes())
    return digest.hexdigest()


def _text(path: Path) -> str:
    return str(real_path(path))
