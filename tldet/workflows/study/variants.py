"""Variants of a study: changes to the arguments and config of ``tldet finetune``."""

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
    "training.seed": "use --seeds",
    "data.train.annotations": "use --train",
    "data.val.annotations": "use --val",
    "data.train.images": "use --images",
    "data.val.images": "use --images",
    "data.train.subset": "leave it out (a study takes --fractions)",
    "data.train.on_bad_image": "use --on-bad-image",
    "data.val.on_bad_image": "use --on-bad-image",
    "schedule.epochs": "use --epochs",
    "schedule.steps": "use --steps",
    "schedule.minutes": "use --minutes",
    "training.validate_every": "runs are evaluated once, at the end",
}
REFERENCE = "finetuned"  # variant that all others are compared with


@dataclass(frozen=True)
class Variant:
    """Training variant of a study.

    Attributes:
        call: keyword arguments of ``finetune``.
        options: config options ``a.b=c``.
        controls: further config keys that ``--cfg-options`` must not set because the variant does.
        timed_by: for a length in minutes, the variant whose number of steps this one uses, because its own first steps
            are not typical; None for itself.
    """

    call: Mapping[str, Any] = field(default_factory=dict)
    options: Sequence[str] = ()
    controls: Sequence[str] = ()
    timed_by: str | None = None


VARIANTS: dict[str, Variant] = {
    "scratch": Variant({"scratch": True}, controls=["model.weights", "model.backbone.weights", "freeze", "l2_sp"]),
    "frozen": Variant(options=["freeze.layers=['backbone']"], controls=["freeze"]),
    "finetuned": Variant(),
    "gradual": Variant(options=["freeze.gradual=0.5"], controls=["freeze"], timed_by=REFERENCE),
    "layer-decay": Variant(options=["optimizer.layer_decay=0.7", "optimizer.backbone_lr=1.0"]),
}


def transfer_variants(names: Sequence[str]) -> dict[str, Variant]:
    """Return variants by name.

    Raises:
        ConfigError: a name is unknown or given twice.
    """
    _refuse_twice("--variants", names)
    for name in names:
        if name not in VARIANTS:
            raise ConfigError(f"--variants {name}: no such variant; {nearest(name, VARIANTS)}")
    return {name: VARIANTS[name] for name in names}


def backbone_variants(names: Sequence[str], model: str) -> dict[str, Variant]:
    """Return one variant per backbone, after a test that the backbone fits the recipe.

    Raises:
        ConfigError: a name is unknown or given twice, or a backbone does not fit the recipe.
    """
    _refuse_twice("backbones", names)
    recipe = load_recipe(model)
    for name in names:
        replace_backbone(recipe["model"], name)
    return {name: Variant({"backbone": name}, controls=["model.backbone", "model.weights"]) for name in names}


def refuse_without_timing(variants: Mapping[str, Variant], minutes: float | None) -> None:
    """Reject a variant whose number of steps is determined by a variant that is not in the study.

    Raises:
        ConfigError: that variant is missing.
    """
    for name, variant in variants.items():
        if minutes is not None and variant.timed_by is not None and variant.timed_by not in variants:
            raise ConfigError(
                f"--variants {name}: --minutes needs variant {variant.timed_by!r} to determine the number of steps, "
                f"because the first steps of {name!r} are faster than later ones; add {variant.timed_by!r}, or use "
                "--steps"
            )


def refuse_conflict(variants: Mapping[str, Variant], given: Mapping[str, Any]) -> None:
    """Reject config options that override a variant or make runs unequal, including parent and child keys.

    Raises:
        ConfigError: an option does so.
    """
    refuse_controlled(given)
    if given.get("training.patience") is not None:
        raise ConfigError("--cfg-options training.patience: all runs of a study have the same length; leave it out")
    for name, variant in variants.items():
        if conflict := conflicting_key(given, [*parse_options(variant.options), *variant.controls]):
            raise ConfigError(f"--cfg-options {conflict}: variant {name!r} sets this key; leave out one of them")
    for name in (name for name, variant in variants.items() if variant.call.get("scratch")):
        refuse_scratch_options(given, f"variant {name!r}")


def refuse_controlled(
    given: Mapping[str, Any], option: str = "--cfg-options", controlled: Mapping[str, str] = CONTROLLED
) -> None:
    """Reject config options that a study or few-shot experiment sets for each run.

    Args:
        given: dotted keys and values.
        option: the command-line option of these.
        controlled: advice for each key that is set for each run.

    Raises:
        ConfigError: an option sets the seed, the data or the length, also through a parent or child key.
    """
    if conflict := conflicting_key(given, controlled):
        advice = next(text for key, text in controlled.items() if _related(conflict, key))
        raise ConfigError(f"{option} {conflict}: the experiment sets this key for each run; {advice}")


def conflicting_key(given: Iterable[str], controlled: Iterable[str]) -> str | None:
    """Return the first given key that equals, contains or lies inside a controlled key."""
    keys = list(controlled)
    return next((key for key in sorted(given) if any(_related(key, other) for other in keys)), None)


def _related(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}.")


def refuse_redundant(variants: Mapping[str, Variant], recipe: Config) -> None:
    """Reject a variant that equals the recipe and would be compared with itself.

    Raises:
        ConfigError: the recipe already has all settings of the variant, or another layer-wise decay.
    """
    for name, variant in variants.items():
        options = parse_options(variant.options)
        decays = "optimizer.layer_decay" in options and recipe.get("optimizer.layer_decay", 1.0) != 1.0
        if options and (decays or all(recipe.get(key) == value for key, value in options.items())):
            key = next(iter(options))
            raise ConfigError(
                f"--variants {name}: the recipe already sets {key} = {recipe.get(key)!r} (in {recipe.origin(key)}), so "
                f"{REFERENCE!r} is the same variant; leave out {name!r} or choose another --model"
            )


def _refuse_twice(what: str, names: Sequence[str]) -> None:
    if twice := next((name for name in names if list(names).count(name) > 1), None):
        raise ConfigError(f"{what}: {twice} is given twice")
