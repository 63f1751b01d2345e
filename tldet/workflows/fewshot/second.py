"""The second phase: base and novel classes from K objects each, from where the base training left off."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from tldet import checkpoint
from tldet.data.layouts import Split
from tldet.data.shots import Subset
from tldet.errors import CheckpointError, ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.models.heads.faster_rcnn import BoxBranch
from tldet.models.hollow import hollow
from tldet.workflows.fewshot.plan import ARMS, Cell, Plan
from tldet.workflows.runs import rhythm

BOX_LAYER = "bbox_pred"  # what corrects boxes, in every head
LAST_DROP = 0.9  # share of a run with milestones after which the learning rate drops (TFA's configs)


def open_base(path: Path, plan: Plan) -> dict[str, Any]:
    """A base checkpoint that can be gone on from.

    Raises:
        CheckpointError: it cannot be read, describes no training, knows a novel class or lacks a base class.
    """
    state = checkpoint.load(path)
    config, names = state["config"], state["meta"]["class_names"]
    if not config["model"].get("head") or not config["data"].get("train") or not config.get("optimizer"):
        raise CheckpointError(f"{path}: its config describes no training of a detector; give that of a tldet run")
    if met := [name for name in plan.novel if name in names]:
        raise CheckpointError(f"{path}: was trained on class {met[0]!r}, which --novel says is new to it")
    if lacking := [name for name in plan.base_classes if name not in names]:
        raise CheckpointError(
            f"{path}: does not know class {lacking[0]!r}: name it in --novel, or train the base on it"
        )
    return state


def second_config(base: Mapping[str, Any], plan: Plan, cell: Cell, drawn: Subset) -> dict[str, Any]:
    """The base run's config, but for what the second phase does otherwise.

    Args:
        base: the base run's checkpoint.
        plan: the experiment.
        cell: which of its runs.
        drawn: K objects a class.
    """
    config: dict[str, Any] = copy.deepcopy(base["config"])
    for key in ("freeze", "l2_sp"):  # the base training's means against forgetting its own start
        config.pop(key, None)
    config["model"].pop("weights", None)
    config["model"]["head"]["num_classes"] = len(plan.classes)
    set_arm(config, cell.arm)
    config["data"] = _data(config["data"], base["meta"]["input"], drawn.path, plan)
    config["optimizer"]["lr"] *= plan.lr_factor
    config["schedule"] = _schedule(config["schedule"], plan.shot_steps)
    epoch = max(1, drawn.pictures // config["data"]["loader"].get("batch_size", 1))
    rest = {"seed": cell.seed, "patience": None, **rhythm({"steps": plan.shot_steps}, epoch)}
    config["training"] = {**config.get("training", {}), **rest}
    return config


def set_arm(config: dict[str, Any], name: str) -> None:
    """Change a config to a way of fine-tuning.

    Raises:
        ConfigError: the way does not go with the detector.
    """
    arm, model = ARMS[name], config["model"]
    detector = hollow(lambda: build_detector(model))
    if arm.cosine:
        if not any(isinstance(part, BoxBranch) for part in detector.modules()):
            kind = model["head"]["type"]
            raise ConfigError(f"--arms {name}: needs a two-stage detector for its cosine classifier, not {kind}")
        model["head"].setdefault("roi", {})["cosine"] = "fixed"
    if arm.frozen:
        config["freeze"] = {"layers": all_but(detector, last_layers(detector))}


def last_layers(detector: Detector) -> list[str]:
    """The layers that classify and correct boxes (and masks): what TFA fine-tunes."""
    head: Any = detector.head
    boxes = [name for name, _ in head.named_modules() if name.rpartition(".")[2] == BOX_LAYER]
    return [f"head.{name}" for name in dict.fromkeys([*head.class_layers, *boxes])]


def all_but(model: nn.Module, spared: Sequence[str], prefix: str = "") -> list[str]:
    """The fewest modules and parameters, by their dotted names, that hold all of a model but the ``spared`` modules."""
    names = [prefix + name for name, _ in model.named_parameters(recurse=False)]
    for name, part in model.named_children():
        path = prefix + name
        if path in spared or next(part.parameters(), None) is None:
            continue
        inside = any(one.startswith(f"{path}.") for one in spared)
        names += all_but(part, spared, f"{path}.") if inside else [path]
    return names


def _data(base: Mapping[str, Any], size: Mapping[str, int], shots: Path, plan: Plan) -> dict[str, Any]:
    """K shots to train on, nothing to choose a checkpoint by, and what is measured at the end."""
    train = {key: value for key, value in base["train"].items() if key != "classes"}
    train.update(_place(Split(shots, plan.train.images)))
    test = {"type": "CocoDataset", **_place(plan.measured), "transforms": [{"type": "Resize", **size}]}
    return {"train": train, "test": test, "loader": base.get("loader") or {}}


def _place(split: Split) -> dict[str, str]:
    return {"annotations": str(split.annotations.resolve()), "images": str(split.images.resolve())}


def _schedule(base: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The base run's course over so many steps; its milestones become one, near the end."""
    schedule = {key: value for key, value in base.items() if key not in ("epochs", "minutes", "steps", "milestones")}
    if schedule.get("policy") == "multistep":
        schedule["milestones"] = [max(1, round(LAST_DROP * steps))]
    return {**schedule, "steps": steps}
