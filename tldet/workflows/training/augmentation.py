"""Parsing of ``--augment``: presets, transform names and calls, and the choice of a preset by ``auto``."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

from tldet.config.literals import literal
from tldet.data.presets import PRESETS, preset
from tldet.errors import ConfigError
from tldet.text import counted
from tldet.workflows.training.run_options import Length

Steps = list[dict[str, Any]]
Augment = Sequence[str | Mapping[str, Any]]
AUTO = ["auto"]
# Smallest number of passes over the images for each preset. Strong augmentation helps in long runs only: short runs do
# not even fit the images without augmentation (Ghiasi et al. 2021, figure 1).
STANDARD_FROM, STRONG_FROM = 10, 80
# Images per second, to estimate the passes of a run whose length is given in minutes. A rough estimate is sufficient,
# because the limits above differ by a factor of 8.
_RATES = {("cpu", "small"): 8.0, ("cpu", "large"): 1.0, ("gpu", "small"): 100.0, ("gpu", "large"): 30.0}


def parse_transforms(listed: Augment, *, masks: bool = False) -> Steps:
    """Read transforms: dicts, names, calls such as ``ColorJitter(p=0.3)``, or one preset.

    Args:
        listed: the transforms; a preset is replaced by its transforms.
        masks: True if the samples have masks.

    Raises:
        ConfigError: an entry has another form, or there are two presets.
    """
    named = [one for one in listed if isinstance(one, str) and one in (*PRESETS, *AUTO)]
    alone = {"none", *AUTO} & set(named)
    if len(named) > 1 or (alone and len(listed) > 1):
        raise ConfigError(f"--augment {' '.join(map(str, listed))}: {named[0]} cannot be combined with the others")
    steps: Steps = []
    for one in listed:
        if isinstance(one, Mapping):
            steps.append(dict(one))
        else:
            steps += preset(one, masks=masks) if one in PRESETS else [_parse(one)]
    return steps


def _parse(text: str) -> dict[str, Any]:
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Call) and not node.args and all(word.arg for word in node.keywords):
            values = {str(word.arg): literal("--augment", word.value) for word in node.keywords}
            name = ast.unparse(node.func)
            return values if name == "dict" else {"type": name, **values}
        if isinstance(node, (ast.Name, ast.Attribute)):
            return {"type": ast.unparse(node)}
    except (SyntaxError, ValueError):
        pass
    raise ConfigError(
        f"--augment {text}: must be a preset, a name such as HorizontalFlip, or a call such as 'ColorJitter(p=0.3)'"
    )


def choose_preset(images: int, batch: int, length: Length, *, fast: bool, small: bool) -> tuple[str, str]:
    """Choose a preset by the number of passes over the images; return it with a log line.

    Args:
        images: number of training images.
        batch: images per step.
        length: length of the run.
        fast: True if the run uses a GPU.
        small: True for a recipe with a small backbone.
    """
    if length.unit == "epochs":
        passes = length.value
    elif length.unit == "steps":
        passes = length.value * batch / images
    else:
        passes = 60 * length.value * _RATES["gpu" if fast else "cpu", "small" if small else "large"] / images
    chosen = "light" if passes < STANDARD_FROM else "standard" if passes < STRONG_FROM else "strong"
    estimated = ", estimated" if length.unit == "minutes" else ""
    count = f"{passes:.3g} {'pass' if f'{passes:.3g}' == '1' else 'passes'}"
    return chosen, f"augmentation {chosen} (auto: {counted(images, 'image')}, {count}{estimated})"
