"""What is compared: ways to start and to train, each as the changes to one call of ``tldet finetune``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tldet.config import Config, parse_options
from tldet.config.check import nearest
from tldet.errors import ConfigError
from tldet.models.replace import replace_backbone
from tldet.workflows.training.initial_weights import refuse_scratch_options
from tldet.workflows.training.recipes import load_recipe

CONTROLLED = {
    "training.seed": "give --seeds",
    "data.train.annotations": "give --train",
    "data.val.annotations": "give --val",
    "data.train.images": "give --images",
    "data.val.images": "give --images",
    "schedule.epochs": "give --epochs",
    "schedule.steps": "give --steps",
    "schedule.minutes": "give --minutes",
    "training.validate_every": "runs are evaluated once, at the end",
}
REFERENCE = "finetuned"  # what the other arms are compared with, where it is among them


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        call: keyword arguments of ``finetune``.
        options: of its config, ``a.b=c``.
        controls: further config keys that ``--cfg-options`` must not set because the variant does.
        pace: the arm whose number of steps it takes where the budget is in minutes, because its own first steps do not
            tell how long the others take; None for itself.
    """

    call: Mapping[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    controls: Sequence[str] = ()
    pace: str | None = None


ARMS: dict[str, Arm] = {
    "scratch": Arm({"scratch": True}, controls=["model.weights", "model.backbone.weights", "freeze", "l2_sp"]),
    "frozen": Arm(options=["freeze.layers=['backbone']"], controls=["freeze"]),
    "finetuned": Arm(),
    "gradual": Arm(options=["freeze.gradual=0.5"], controls=["freeze"], pace=REFERENCE),
    "layer-decay": Arm(options=["optimizer.layer_decay=0.7", "optimizer.backbone_lr=1.0"]),
}


def transfer_arms(names: Sequence[str]) -> dict[str, Arm]:
    """Arms by name.

    Raises:
        ConfigError: a name is unknown or given twice.
    """
    _refuse_twice("--arms", names)
    for name in names:
        if name not in ARMS:
            raise ConfigError(f"--arms {name}: no such arm; {nearest(name, ARMS)}")
    return {name: ARMS[name] for name in names}


def backbone_arms(names: Sequence[str], model: str) -> dict[str, Arm]:
    """An arm for each backbone; each is tried in the recipe, without weights, before any run.

    Raises:
        ConfigError: a name is unknown or given twice, or the backbone cannot serve the recipe.
    """
    _refuse_twice("backbones", names)
    recipe = load_recipe(model)
    for name in names:
        replace_backbone(recipe["model"], name)
    return {name: Arm({"backbone": name}, controls=["model.backbone", "model.weights"]) for name in names}


def refuse_unpaced(arms: Mapping[str, Arm], minutes: float | None) -> None:
    """An arm that takes another's number of steps needs that other in the study.

    Raises:
        ConfigError: it is not there.
    """
    for name, arm in arms.items():
        if minutes is not None and arm.pace is not None and arm.pace not in arms:
            raise ConfigError(
                f"--arms {name}: its first steps are the cheap ones, so a budget of minutes is measured on arm "
                f"{arm.pace!r}: add that to --arms, or give --steps"
            )


def refuse_clash(arms: Mapping[str, Arm], options: Sequence[str]) -> None:
    """Refuse ``--cfg-options`` that override a variant or make runs unequal, including parent and child keys.

    Raises:
        ConfigError: an option does so, or is malformed.
    """
    refuse_controlled(options)
    given = parse_options(options)
    if given.get("training.patience") is not None:
        raise ConfigError("--cfg-options training.patience: the runs of a study are equally long; leave it out")
    for name, arm in arms.items():
        if clash := _overlap(given, [*parse_options(arm.options), *arm.controls]):
            raise ConfigError(f"--cfg-options {clash}: arm {name!r} sets this key; leave out one of them")
    for name in (name for name, arm in arms.items() if arm.call.get("scratch")):
        refuse_scratch_options(given, f"arm {name!r}")


def refuse_controlled(options: Sequence[str]) -> None:
    """Refuse ``--cfg-options`` that a study or few-shot experiment sets per run.

    Raises:
        ConfigError: an option sets the seed, the data or the length, also through a parent or child key.
    """
    given = parse_options(options)
    if clash := _overlap(given, CONTROLLED):
        use = next(use for key, use in CONTROLLED.items() if _related(clash, key))
        raise ConfigError(f"--cfg-options {clash}: the experiment sets this key for each run; {use}")


def _overlap(given: Iterable[str], controlled: Iterable[str]) -> str | None:
    """Return the first given key that equals, contains or lies inside a controlled key."""
    keys = list(controlled)
    return next((key for key in sorted(given) if any(_related(key, other) for other in keys)), None)


def _related(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def refuse_same(arms: Mapping[str, Arm], recipe: Config) -> None:
    """Refuse a variant that equals the recipe and would be compared with itself.

    Raises:
        ConfigError: the recipe already has all settings of the variant, or another layer-wise decay.
    """
    for name, arm in arms.items():
        options = parse_options(arm.options)
        decays = "optimizer.layer_decay" in options and recipe.get("optimizer.layer_decay", 1.0) != 1.0
        if options and (decays or all(recipe.get(key) == value for key, value in options.items())):
            key = next(iter(options))
            raise ConfigError(
                f"--arms {name}: the recipe already sets {key} = {recipe.get(key)!r} (in {recipe.origin(key)}), so "
                f"{REFERENCE!r} is the same variant; leave out {name!r} or choose another --model"
            )


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise ConfigError(f"{what}: {twice} is given twice")
