"""What is compared: ways to start and to train, each as the changes to one call of ``tldet finetune``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tldet.config import parse_options
from tldet.config.check import nearest
from tldet.errors import ConfigError
from tldet.models.replace import replace_backbone
from tldet.workflows.finetune import load_recipe
from tldet.workflows.start import refuse_scratch_options

REFERENCE = "finetuned"  # what the other arms are compared with, where it is among them


@dataclass(frozen=True)
class Arm:
    """One side of a comparison.

    Attributes:
        call: keyword arguments of ``finetune``.
        options: of its config, ``a.b=c``.
        pace: the arm whose number of steps it takes where the budget is in minutes, because its own first steps do not
            tell how long the others take; None for itself.
    """

    call: Mapping[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    pace: str | None = None


ARMS: dict[str, Arm] = {
    "scratch": Arm({"scratch": True}),
    "frozen": Arm(options=["freeze.layers=['backbone']"]),
    "finetuned": Arm(),
    "gradual": Arm(options=["freeze.gradual=0.5"], pace=REFERENCE),
    "layer-decay": Arm(options=["optimizer.layer_decay=0.7"]),
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
    return {name: Arm({"backbone": name}) for name in names}


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
    """An option for all runs must not undo what an arm is about.

    Raises:
        ConfigError: it would, or it is no option.
    """
    given = parse_options(options)
    if given.get("training.patience") is not None:
        raise ConfigError("--cfg-options training.patience: the runs of a study are equally long; leave it out")
    for name, arm in arms.items():
        if clash := sorted(parse_options(arm.options).keys() & given.keys()):
            raise ConfigError(f"--cfg-options {clash[0]}: is what arm {name!r} is about; leave out one of them")
    for name in (name for name, arm in arms.items() if arm.call.get("scratch")):
        refuse_scratch_options(given, f"arm {name!r}")


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise ConfigError(f"{what}: {twice} is given twice")
