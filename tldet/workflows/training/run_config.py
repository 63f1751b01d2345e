"""Config of a run: intervals of validation and checkpoints, and the config of a run that resumes another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tldet.components import needed_imports
from tldet.config import Config, override, parse_options
from tldet.engine.distributed import World, current, process_group
from tldet.system.locks import locked
from tldet.workflows.training.recipes import without_factor
from tldet.workflows.training.run_options import UNITS, Length

LONG_EPOCH = 100  # steps; a run of minutes is then validated after each epoch
# Sections that a run started from the config of another run does not inherit.
NOT_INHERITED = ("freeze", "l2_sp", "class_match", "distill", "hooks")
LAST_DROP = 0.9  # share of the run after which the learning rate drops (as in the configs of TFA)


@contextmanager
def using(folder: str | Path) -> Iterator[World]:
    """Join the processes of a run and lock its folder.

    Raises:
        OutputError: another run uses the folder, or it cannot be written.
        ConfigError: see :func:`~tldet.engine.distributed.process_group`.
    """
    with process_group() as world, ExitStack() as stack:
        world.first(lambda: stack.enter_context(locked(folder)))
        yield world


def steps_in_epoch(images: int, batch: int) -> int:
    """Return the number of steps per epoch with the current number of processes."""
    return max(1, images // (batch * current().size))


def intervals_for(length: Length, an_epoch: int) -> dict[str, Any]:
    """Return intervals of validation, checkpoints and logging for a length; ``an_epoch`` is the steps per epoch."""
    if length.unit == "epochs":
        every = max(1, int(length.value) // 10)
    elif length.unit == "steps":
        every = max(1, round(length.value / an_epoch / 5))
    else:
        every = 1 if an_epoch >= LONG_EPOCH else 2
    return {"validate_every": every, "checkpoint_every": every, "log_every": 10}


def derive_config(config: dict[str, Any], data: dict[str, Any], length: Length, seed: int, images: int) -> None:
    """Change the config of a run to that of a new run which starts from its weights.

    Args:
        config: config of the earlier run, changed in place.
        data: ``data`` section of the new run.
        length: length of the new run.
        seed: seed of the new run.
        images: number of training images.
    """
    for key in NOT_INHERITED:
        config.pop(key, None)
    config["data"] = data
    config["schedule"] = schedule_for(config["schedule"], length)
    an_epoch = steps_in_epoch(images, data["loader"].get("batch_size", 1))
    training = {key: value for key, value in (config.get("training") or {}).items() if key != "device"}
    config["training"] = {**training, "seed": seed, "patience": None, **intervals_for(length, an_epoch)}


def schedule_for(schedule: Mapping[str, Any], length: Length) -> dict[str, Any]:
    """Return a ``schedule`` section for another length; milestones are replaced by a single one near the end.

    Args:
        schedule: section of the earlier run.
        length: length of the new run.
    """
    if schedule.get(length.unit) == length.value:
        return dict(schedule)
    new = {key: v for key, v in schedule.items() if key not in (*UNITS, "milestones")}
    if new.get("policy") == "multistep":
        last = LAST_DROP * length.value
        new["milestones"] = [max(1, round(last)) if length.unit == "steps" else last]
    return {**new, **length.section()}


def final_config(config: dict[str, Any], options: Sequence[str], source: str, *, decays: bool = False) -> Config:
    """Return the config of a new run, with the imports that it needs.

    Args:
        config: config without options.
        options: config options ``a.b=c``.
        source: origin of the keys in messages.
        decays: the run has turned on layer-wise decay of the learning rate, without a config option.

    Raises:
        ConfigError: an option is wrong.
    """
    given = parse_options(options)
    used = without_factor(override(Config(config, {}, source), given), given, chosen=decays)
    if imports := sorted({*(used.get("imports") or []), *needed_imports(used.data)}):
        used.data["imports"] = imports
    return used
