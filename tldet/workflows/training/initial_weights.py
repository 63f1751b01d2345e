"""Initial weights: options of ``tldet finetune``, and loading into the model."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tldet.config import Config
from tldet.config.files import shipped
from tldet.errors import ConfigError, TrainingError
from tldet.models.backbones.base import has_batch_norm
from tldet.models.surgery.frozen_norms import fold_frozen_norms
from tldet.system.inputs import real_path
from tldet.transfer.class_match import MatchSettings
from tldet.transfer.initial_weights import init_from as init_from_checkpoint
from tldet.transfer.initial_weights import load_initial, open_initial
from tldet.transfer.interop.adapt import set_input
from tldet.transfer.interop.known import coco_weights
from tldet.transfer.weights import LoadReport, load_backbone_weights

log = logging.getLogger(__name__)
NAMES = MatchSettings()  # exact names
RANDOM = (
    "the backbone has random weights, but parts of it are frozen (model.backbone.frozen_stages=%d, norm='%s'): random "
    "layers are not trained, and a frozen BatchNorm does not normalize, so the loss may diverge; set "
    "model.backbone.norm=batch and model.backbone.frozen_stages=-1"
)


@dataclass(frozen=True)
class LoadedWeights:
    """Initial weights of a model.

    Attributes:
        source: source of the weights.
        loaded: names of the tensors that were loaded completely.
        classes: class of the initial detector for each class, None for a new class; empty without a detector.
        resumed: the weights are loaded later, from a checkpoint of the same run.
        license: license of the source; empty if none is stated.
    """

    source: str = "random"
    loaded: tuple[str, ...] = ()
    classes: Mapping[str, str | None] = field(default_factory=dict)
    resumed: bool = False
    license: str = ""

    @property
    def renewed(self) -> bool:
        """True if a class is new or has another name in the initial weights."""
        return any(name != old for name, old in self.classes.items())


@dataclass(frozen=True)
class WeightsSource:
    """Source of the initial weights of a model; the first one that is set is used.

    Attributes:
        resume: the weights are loaded from a checkpoint of the run.
        init_from: a tldet checkpoint.
        detector: source of the weights of a detector (``model.weights.source``).
    """

    resume: bool = False
    init_from: str | Path | None = None
    detector: str | None = None

    def __bool__(self) -> bool:
        return bool(self.resume or self.init_from or self.detector)


def initial_weights(model: Any, source: WeightsSource, match: MatchSettings = NAMES) -> LoadedWeights:
    """Load the initial weights of a model; without a source, those of its backbone.

    Args:
        model: a detector or a classifier; the frozen stages of its backbone are frozen, and frozen norms folded.
        source: source of the weights; nothing is downloaded for a checkpoint.
        match: matching of class names with those of a detector.

    Raises:
        TldetError: the weights cannot be loaded or do not fit.
    """
    if (match.aliases or match.fold) and not source:
        raise ConfigError(
            "class_match: needs detector weights as initial weights (--init-from or --weights); leave it out otherwise"
        )
    initial = _loaded(model, source, match)
    fold_frozen_norms(model.backbone.freeze())
    return initial


def _loaded(model: Any, source: WeightsSource, match: MatchSettings) -> LoadedWeights:
    if source.resume:
        return LoadedWeights("resumed", resumed=True)
    if source.init_from:
        path = real_path(source.init_from)  # absolute: the run may be resumed in another folder
        return _detector(str(path), init_from_checkpoint(model, path, match))
    if source.detector:
        return _detector(source.detector, load_initial(model, source.detector, match))
    backbone = model.backbone
    if backbone.weights_source:
        report = load_backbone_weights(backbone, backbone.weights_source)
        _log(report)
        names = [f"backbone.{name.removesuffix(' (by order)')}" for name in report.copied + report.adapted]
        return LoadedWeights(backbone.weights_source, tuple(names), license=report.license)
    if backbone.frozen_stages >= 0 or (backbone.norm == "frozen" and has_batch_norm(backbone)):
        log.warning(RANDOM, backbone.frozen_stages, backbone.norm)
    return LoadedWeights()


def _detector(source: str, report: LoadReport) -> LoadedWeights:
    _log(report)
    return LoadedWeights(source, tuple(report.copied), report.classes, license=report.license)


def _log(report: LoadReport) -> None:
    log.info("initial weights %s", report.summary())
    if report.license:
        log.info("license of the initial weights: %s", report.license)


def check_initial(
    weights: str | Path | None, scratch: bool, backbone: str | None, init_from: str | Path | None
) -> None:
    """Reject options of initial weights that cannot be combined.

    Raises:
        TrainingError: more than one is given.
    """
    if scratch and init_from is not None:
        raise TrainingError("--scratch and --init-from cannot be combined")
    given = {"--scratch": scratch, "--init-from": init_from is not None, "--backbone": weights == "coco" and backbone}
    other = next((name for name, there in given.items() if there), None)
    if weights is not None and other:
        raise TrainingError(f"--weights {weights} and {other} cannot be combined")


OF_WEIGHTS: dict[str, tuple[Any, ...]] = {  # config keys that need pretrained weights, with their neutral values
    "model.weights": (None, {}),
    "model.backbone.weights": (None,),
    "model.backbone.frozen_stages": (None, -1),
    "model.backbone.norm": (None, "batch"),
    "freeze": (None, {}),
    "l2_sp": (None, {}),
    "class_match": (None, {}),
    "distill": (None, {}),
    "optimizer.layer_decay": (None, 1.0),
}
_FACTOR = "optimizer.backbone_lr"  # a factor below 1 protects pretrained weights


def from_scratch(recipe: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return a recipe without pretrained weights and without the settings that depend on such weights.

    Returns:
        The config, and a log line for each dropped setting except the usual ones of the backbone.
    """
    config: dict[str, Any] = copy.deepcopy(dict(recipe))
    usual = [key for key in OF_WEIGHTS if key.startswith("model.backbone.")]
    dropped = {key: value for key, value in _of_weights(config).items() if key not in usual}
    for key in dropped:
        section, _, name = key.rpartition(".")
        (config[section] if section else config).pop(name)
    factor = config["optimizer"].get("backbone_lr")
    if isinstance(factor, (int, float)) and factor < 1:
        dropped[_FACTOR] = config["optimizer"].pop("backbone_lr")
    config["model"]["backbone"].update(weights=None, frozen_stages=-1, norm="batch")
    return config, [f"--scratch: dropped {key} = {value!r} of the recipe" for key, value in dropped.items()]


def check_scratch(config: Config) -> None:
    """Reject pretrained weights, and settings that depend on them, in the final config of a run from scratch.

    Raises:
        TrainingError: an option sets such a key.
    """
    if found := _of_weights(config.data):
        key, value = next(iter(found.items()))
        raise TrainingError(
            f"--scratch and {key}={value!r} cannot be combined: the initial weights are random; leave one of them out"
        )


def refuse_scratch_options(options: Mapping[str, Any], variant: str) -> None:
    """Reject config options that contradict a variant from scratch.

    Raises:
        ConfigError: an option sets pretrained weights, or a key that depends on them.
    """
    for key, value in options.items():
        inside = any(key.startswith(f"{name}.") and value for name in OF_WEIGHTS)
        if inside or value not in OF_WEIGHTS.get(key, (value,)):
            raise ConfigError(
                f"--cfg-options {key}={value!r}: {variant} has random initial weights; leave one of them out"
            )


def _of_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of :data:`OF_WEIGHTS` that are set, with their values."""
    found = {}
    for key, none in OF_WEIGHTS.items():
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if isinstance(value, Mapping):
            value = {name: one for name, one in value.items() if one}
        if value not in none:
            found[key] = value
    return found


def with_weights(recipe: Mapping[str, Any], weights: str, name: str) -> dict[str, Any]:
    """Return a recipe with other initial weights, of the detector or of the backbone.

    Detector weights determine normalization, channel order and the strided convolution of bottlenecks.

    Args:
        recipe: the recipe.
        weights: "coco" or a file.
        name: name of the recipe.

    Raises:
        CheckpointError: there are no such weights.
    """
    config: dict[str, Any] = copy.deepcopy(dict(recipe))
    model = config["model"]
    if weights == "coco":
        model["weights"] = {"source": coco_weights(name, shipped())}
        return config
    start = open_initial(Path(weights))
    if start is None:
        log.info("%s: backbone weights; neck and head are newly initialized", weights)
        model["backbone"]["weights"] = str(real_path(weights))
        return config
    model["weights"] = {"source": str(real_path(weights))}
    published = start.published
    stride = start.strided_conv or published.get("backbone", {}).get("strided_conv")
    same = model["backbone"].get("name") == start.backbone
    for line in set_input(model, start.preprocess or published.get("preprocess"), stride if same else None):
        log.info("%s: %s (as in the training of these weights)", weights, line)
    return config
