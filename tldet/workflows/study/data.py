"""Data of a study: COCO JSON files, or an external dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tldet.config import Config, parse_options
from tldet.data.checks.images import usable_ids
from tldet.data.dataset import CocoDataset
from tldet.data.fingerprint import index_fingerprint
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Layout, Split
from tldet.data.split_paths import resolve_layout
from tldet.data.subsets import write_subset
from tldet.errors import ConfigError, DataError
from tldet.evaluation.columns import GroundTruth, Type
from tldet.evaluation.loading import load_ground_truth
from tldet.system.inputs import file_hash, real_path
from tldet.transfer.provenance import checkpoint_outline
from tldet.workflows.study.job import Job, exact
from tldet.workflows.study.request import ExperimentRequest
from tldet.workflows.training.custom_data import own_index, with_own_data
from tldet.workflows.training.datasets import build_dataset, ground_truth
from tldet.workflows.training.recipes import has_own_data

SPLIT_SEED = 0  # of the validation split of a single JSON, the same for every run


def layout_of(request: ExperimentRequest) -> Layout:
    """Find the splits of an experiment; see :func:`~tldet.data.split_paths.resolve_layout`."""
    return resolve_layout(
        request.data,
        request.train,
        request.val,
        request.images,
        request.folder,
        SPLIT_SEED,
        request.source(request.on_bad_image),
    )


class StudyData(Protocol):
    """Data that all runs of a study share."""

    @property
    def index(self) -> AnnotationIndex:
        """Annotations of the training images."""
        ...

    @property
    def val(self) -> tuple[str, str]:
        """Annotations and image folder of the validation images; both empty for an external dataset."""
        ...

    def call(self) -> dict[str, Any]:
        """Return the data arguments of ``finetune``."""
        ...

    def subset(self, fraction: float, seed: int) -> str:
        """Return the config option for training on a fraction of the images."""
        ...

    def hashes(self) -> Mapping[str, str]:
        """Return hashes of training and validation annotations."""
        ...

    def truth(self) -> GroundTruth:
        """Return the ground truth of the validation images that are evaluated."""
        ...


@dataclass(frozen=True)
class JsonData:
    """COCO JSON files."""

    request: ExperimentRequest
    train: Split
    validation: Split
    index: AnnotationIndex

    @classmethod
    def of(cls, request: ExperimentRequest) -> JsonData:
        """Find the splits.

        Raises:
            DataError: there are no splits, or no objects to evaluate on.
        """
        layout = layout_of(request)
        assert layout.val is not None  # a single JSON is split
        if AnnotationIndex.load(layout.val.annotations).crowd.all():
            raise DataError(f"{layout.val.annotations}: has no object to evaluate on")
        return cls(request, layout.train, layout.val, AnnotationIndex.load(layout.train.annotations))

    @property
    def val(self) -> tuple[str, str]:
        """See :class:`StudyData`."""
        return _text(self.validation.annotations), _text(self.validation.images)

    def call(self) -> dict[str, Any]:
        """See :class:`StudyData`."""
        train, val, data = self.train, self.validation, self.request.data
        return {
            "data": None if data is None else _text(Path(data)),
            "train": _text(train.annotations),
            "val": _text(val.annotations),
            "images": _text(train.images) if train.images == val.images else self.request.images,
        }

    def subset(self, fraction: float, seed: int) -> str:
        """See :class:`StudyData`; the subset is written as a JSON, the same for the same data."""
        path = self.request.folder / "data" / f"fraction{exact(fraction)}_seed{seed}.json"
        write_subset(self.train, fraction, seed, path)
        return f"data.train.annotations={_text(path)}"

    def hashes(self) -> Mapping[str, str]:
        """See :class:`StudyData`."""
        return {"train": file_hash(self.train.annotations), "val": file_hash(self.validation.annotations)}

    def truth(self) -> GroundTruth:
        """See :class:`StudyData`."""
        truth = load_ground_truth(self.validation.annotations, "bbox")
        return evaluated(truth, self.val, self.request.on_bad_image)


@dataclass(frozen=True)
class OwnData:
    """An external dataset, named by the recipe."""

    request: ExperimentRequest
    recipe: Config
    index: AnnotationIndex
    validation: Any  # its dataset
    val: tuple[str, str] = ("", "")

    def call(self) -> dict[str, Any]:
        """See :class:`StudyData`."""
        request = self.request
        given = {"data": request.data, "train": request.train, "val": request.val, "images": request.images}
        return {name: None if path is None else str(path) for name, path in given.items()}

    def subset(self, fraction: float, seed: int) -> str:
        """See :class:`StudyData`."""
        return f"data.train.subset={{'fraction': {fraction!r}, 'seed': {seed}}}"

    def hashes(self) -> Mapping[str, str]:
        """See :class:`StudyData`."""
        return {"train": index_fingerprint(self.index), "val": index_fingerprint(self.validation.original)}

    def truth(self) -> GroundTruth:
        """See :class:`StudyData`."""
        return ground_truth(self.validation, "bbox")


def own_study_data(recipe: Config, request: ExperimentRequest) -> OwnData:
    """Build the external datasets of a recipe.

    Raises:
        ConfigError: the recipe has no dataset for validation.
        DataError: there are no objects to evaluate on.
    """
    recipe = with_own_data(recipe, request.paths(), parse_options(request.overrides()))
    if not has_own_data(recipe) or not recipe.get("data.val"):
        raise ConfigError(f"{request.model}: has no data.val; a study needs a dataset for validation")
    index = own_index(recipe, SPLIT_SEED)
    validation = build_dataset(recipe["data"]["val"], SPLIT_SEED, index.class_names, path="data.val")
    if validation.index.crowd.all():
        raise DataError(f"{validation.index.path}: has no object to evaluate on")
    return OwnData(request, recipe, index, validation)


def evaluated(truth: GroundTruth, val: tuple[str, str], on_bad_image: str | None) -> GroundTruth:
    """Return the ground truth of the evaluated images, without those that ``on_bad_image="skip"`` skips.

    Args:
        truth: ground truth of all images.
        val: annotations and image folder; both empty for an external dataset, which skips none.
        on_bad_image: "error" or "skip"; None means "error".
    """
    if not val[0] or on_bad_image != "skip":
        return truth
    return truth.on(usable_ids(CocoDataset(*val, on_bad_image="skip")))


def truth_of(job: Job, kind: Type, checkpoint: str | Path) -> GroundTruth:
    """Return the ground truth that a finished run was evaluated on."""
    if job.val[0]:
        return load_ground_truth(job.val[0], kind)
    found = checkpoint_outline(Path(checkpoint))
    dataset = build_dataset(found["config"]["data"]["val"], 0, tuple(found["meta"]["class_names"]), path="data.val")
    return ground_truth(dataset, kind)


def _text(path: Path) -> str:
    return str(real_path(path))
