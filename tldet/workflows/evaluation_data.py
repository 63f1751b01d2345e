"""Dataset that a checkpoint is evaluated on, for ``tldet test`` and ``tldet export``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tldet.components import require_components
from tldet.config import Config, build_settings, validate_config
from tldet.data.formats.source import SourceOptions
from tldet.data.relabeled import Sources, coco_type
from tldet.data.settings import LoaderSettings
from tldet.data.split_paths import evaluation_split
from tldet.errors import CheckpointError, DataError
from tldet.workflows.training.datasets import AnyDataset, build_dataset, check_has_objects, check_images
from tldet.workflows.training.schema import SCHEMA, EvalSettings
from tldet.workflows.training.validation import Validation


@dataclass(frozen=True)
class EvaluationData:
    """User-specified data of an evaluation.

    Attributes:
        data: an annotation file or a dataset folder; None for a split of the checkpoint's config.
        images: image folder; searched by default.
        split: split of the checkpoint's config; None for the test split, or the validation split if there is none.
        source: format of ``data``.
        on_bad_image: "error" or "skip"; None for the setting of the checkpoint's config.
        without: options to use if the config has no data, for the message.
        sources: user datasets of the images of ``data``; see :class:`~tldet.data.relabeled.RelabeledDataset`.
    """

    data: str | Path | None = None
    images: str | Path | None = None
    split: str | None = None
    source: SourceOptions = field(default_factory=SourceOptions)
    on_bad_image: str | None = None
    without: str = "use --data"
    sources: Sources = field(default_factory=dict)

    def section(self, checkpoint: str | Path, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config section of the dataset, after a check of the checkpoint's config.

        Args:
            checkpoint: the file, for messages.
            state: its content.

        Raises:
            CheckpointError: the config has no data, or needs external code.
            ConfigError: a key or value that is used is wrong.
            DataError: the data is not found.
        """
        sections = state["config"].get("data") or {}
        if not isinstance(sections, dict):
            raise CheckpointError(f"{checkpoint}: data: must be a section (a dict), not {sections!r}")
        split = self.split or default_split(sections)
        if self.data is None and sections:
            require_components(checkpoint, state, f"data.{split}")
        check_config(checkpoint, state["config"], split if self.data is None else None)
        if self.data is not None:
            section = self._found(Path(self.data), state["meta"]["input"])
        elif not (section := dict(sections.get(split) or {})):
            raise DataError(f"{checkpoint}: its config has no data to evaluate on; {self.without}")
        elif self.images is not None:
            section["images"] = str(self.images)
        if self.on_bad_image or section["type"] in ("CocoDataset", "RelabeledDataset"):
            stated = (sections.get(split) or {}).get("on_bad_image", "error")
            section["on_bad_image"] = self.on_bad_image or stated
        return section

    def _found(self, data: Path, size: Mapping[str, int]) -> dict[str, Any]:
        found = evaluation_split(data, self.images, self.source)
        paths = {"annotations": str(found.annotations), "images": str(found.images)}
        return {**coco_type(self.sources), **paths, "transforms": [{"type": "Resize", **size}]}


def default_split(sections: Mapping[str, Any]) -> str:
    """Return the split of a config that is evaluated by default: test, or val if there is no test split."""
    return next((name for name in ("test", "val") if sections.get(name)), "val")


def check_config(checkpoint: str | Path, config: Mapping[str, Any], split: str | None) -> None:
    """Check the parts of a checkpoint's config that evaluation uses.

    Args:
        checkpoint: the file, for messages.
        config: its config.
        split: split of the config that is evaluated; None for other data.

    Raises:
        ConfigError: a key or value is wrong.
    """
    sections = config.get("data") or {}
    used = {name: sections[name] for name in (split, "loader") if name and sections.get(name)}
    schema = {
        key: replace(part, required=False)
        for key, part in SCHEMA.items()
        if key == "evaluation" or (key.startswith("data.") and key.split(".")[1] in (split, "loader"))
    }
    validate_config(Config({"data": used, "evaluation": config.get("evaluation")}, source=str(checkpoint)), schema)


def evaluation_dataset(section: Mapping[str, Any], state: Mapping[str, Any]) -> AnyDataset:
    """Build a dataset with the classes of a checkpoint, and check its images.

    Raises:
        TldetError: a key, an annotation or an image is wrong.
    """
    dataset = build_dataset(section, 0, tuple(state["meta"]["class_names"]))
    check_images(dataset)
    check_has_objects(dataset, "metrics are -1")
    return dataset


def evaluation_on(dataset: AnyDataset, config: Mapping[str, Any], engine: Any = "fast") -> Validation:
    """Return the evaluation of a dataset with the settings of a checkpoint's config."""
    loader = build_settings(LoaderSettings, (config.get("data") or {}).get("loader") or {})
    kind = (config.get("evaluation") or {}).get("type", "bbox")
    return Validation(dataset, loader, EvalSettings(kind, engine), losses=False)
