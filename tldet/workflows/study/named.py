"""Variants of ``tldet study variants``: names with options of ``tldet finetune`` or config keys."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tldet.config import parse_options
from tldet.config.check import nearest
from tldet.errors import ConfigError, TldetError
from tldet.workflows.options import Option
from tldet.workflows.requests import options
from tldet.workflows.study.job import Job
from tldet.workflows.study.variants import VARIANTS, Variant, refuse_controlled
from tldet.workflows.training.finetune import planned_config
from tldet.workflows.training.recipes import has_own_data, load_recipe
from tldet.workflows.training.request import FinetuneRequest, RecipeOptions, TransferOptions
from tldet.workflows.training.run_options import SettingsOptions
from tldet.workflows.training.schema import checked_settings

_EQUAL = ("patience", "cfg_options")  # options that variants must not set; config keys are given directly
_QUOTES = ("'", '"')
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_FORM = "NAME=KEY=VALUE[,KEY=VALUE...]"


def named_variants(texts: Sequence[str], model: str) -> dict[str, Variant]:
    """Parse variants such as ``large=model=fcos_r50,lr=0.001``; a name alone is the recipe without changes.

    Args:
        texts: the variants. A key is an option of ``tldet finetune``, or a config key, which contains a dot.
        model: recipe of variants without ``model``.

    Raises:
        ConfigError: a text has another form, a key is unknown or set by the study, or two variants are equal or not
            comparable.
    """
    variants: dict[str, Variant] = {}
    for text in texts:
        name, _, settings = text.partition("=")
        if not re.fullmatch(r"[\w.+-]+", name) or name.startswith("."):
            raise ConfigError(f"{text!r}: must have the form {_FORM}, with a name of letters, digits and . + - _")
        if name in variants:
            raise ConfigError(f"{text!r}: {name} is given twice")
        variants[name] = _variant(name, settings)
        if other := next((one for one, it in variants.items() if one != name and it == variants[name]), None):
            raise ConfigError(f"{text!r} has the same settings as variant {other!r}; remove one of them")
    if len(variants) < 2:
        raise ConfigError(f"study variants {' '.join(texts)}: specify two or more variants to compare")
    _refuse_other_tasks({name: str(variant.call.get("model", model)) for name, variant in variants.items()})
    return variants


def _variant(name: str, text: str) -> Variant:
    table = {
        key: one for kind in (RecipeOptions, TransferOptions, SettingsOptions) for key, one in options(kind).items()
    }
    known = {key: one for key, one in table.items() if key not in _EQUAL}
    call: dict[str, Any] = {}
    config: list[str] = []
    controls: list[str] = []
    for key, value in _pairs(name, text):
        one = known.get(key.replace("-", "_"))
        if "." in key:
            config.append(f"{key}={value}")
        elif one is None:
            near = nearest(key, [one.replace("_", "-") for one in known])
            raise ConfigError(
                f"variant {name}: {key}: neither an option of tldet finetune nor a config key like optimizer.lr; {near}"
            )
        else:
            checked = _value(name, key, one, value)
            controls += one.sets
            if one.setting:
                config += [f"{one.sets[0]}={checked!r}", *(f"{other}=None" for other in one.sets[1:])]
            else:
                call[key.replace("-", "_")] = checked
    refuse_controlled(parse_options(config), f"variant {name}:")
    return Variant(call, config, [*controls, *(VARIANTS["scratch"].controls if call.get("scratch") else ())])


def _pairs(name: str, text: str) -> list[tuple[str, str]]:
    """Split ``a=1,b=[2, 3]`` into keys and values."""
    pairs = [(key.strip(), value.strip()) for key, _, value in (part.partition("=") for part in _split(text))]
    if wrong := next((key for key, value in pairs if not key or not value), None):
        raise ConfigError(f"variant {name}: {wrong} has no value; the form is {_FORM}")
    keys = [key.replace("-", "_") for key, _ in pairs]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        raise ConfigError(f"variant {name}: {twice} is given twice")
    return pairs


def _split(text: str) -> list[str]:
    """Split a text at commas outside of brackets and quotes."""
    parts, closing = [""], ""
    for char in text:
        if not closing and char == ",":
            parts.append("")
            continue
        parts[-1] += char
        if closing and char == closing[-1]:
            closing = closing[:-1]
        elif not closing.endswith(_QUOTES):
            closing += char if char in _QUOTES else _CLOSING.get(char, "")
    return [part for part in parts if part.strip()]


def _value(name: str, key: str, one: Option, text: str) -> Any:
    """Return the value of an option of finetune.

    Raises:
        ConfigError: the option does not take this value.
    """
    if one.many:
        parts = _split(text[1:-1]) if text[0] == "[" and text[-1] == "]" else [text]
        return [_value(name, key, replace(one, many=False), part.strip()) for part in parts]
    value = parse_options([f"{key}={text}"])[key]
    if one.kind is str:
        value = value if isinstance(value, str) else text
    allowed = ", ".join(one.choices) if one.choices else "true, false" if one.kind is bool else ""
    if (one.choices and value not in one.choices) or (one.kind is bool and not isinstance(value, bool)):
        raise ConfigError(f"variant {name}: {key} must be one of {allowed}, not {text}")
    if one.numbers is not None and one.wrong(value) is not None:
        raise ConfigError(f"variant {name}: {key} must be {one.allowed}, not {text}")
    return value


def _refuse_other_tasks(models: Mapping[str, str]) -> None:
    """Reject recipes with different datasets, and combinations of box and mask detectors.

    Raises:
        ConfigError: a recipe is unknown or not comparable.
    """
    recipes = {name: load_recipe(model) for name, model in models.items()}
    masks = {name: recipe["model"]["head"].get("mask") is not None for name, recipe in recipes.items()}
    first = next(iter(models))
    for name, recipe in recipes.items():
        if models[name] != models[first] and has_own_data(recipe):
            raise ConfigError(f"variant {name}: recipe {models[name]} has its own dataset; use it as --model")
        if masks[name] != masks[first]:
            one, other = (first, name) if masks[name] else (name, first)
            raise ConfigError(f"variants {one} and {other}: box AP and mask AP cannot be compared")


def check_jobs(jobs: Sequence[Job]) -> None:
    """Check the config of the first run of each variant before any run starts.

    Raises:
        TldetError: a setting is wrong; the message names the variant.
    """
    seen: set[str] = set()
    for job in jobs:
        if job.variant not in seen:
            seen.add(job.variant)
            try:
                checked_settings(planned_config(FinetuneRequest(out=job.folder, **job.call))[0])
            except TldetError as error:
                raise type(error)(f"variant {job.variant}: {error}") from None
