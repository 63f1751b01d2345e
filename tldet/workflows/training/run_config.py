"""The config of a run: intervals of validation and checkpoints, and the config of a further run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tldet.components import needed_imports
from tldet.config import Config, override, parse_options
from tldet.engine.distributed import World, current, process_group
from tldet.system.locks import locked
from tldet.workflows.training.run_options import UNITS, Length

LONG_EPOCH = 100  # steps; each of a run of minutes is then worth a measurement
# Sections that a run started from the config of another run does not inherit.
OF_A_START = ("freeze", "l2_sp", "class_match", "distill", "hooks")
LAST_DROP = 0.9  # share of a run with milestones after which the learning rate drops (the configs of TFA)


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
    """Steps in a pass over the images, with the processes there are."""
    return max(1, images // (batch * current().size))


def rhythm(length: Length, an_epoch: int) -> dict[str, Any]:
    """Evaluate and save a few times in a short run, each epoch in a long one; ``an_epoch`` counts steps."""
    if length.unit == "epochs":
        every = max(1, int(length.value) // 10)
    elif length.unit == "steps":
        every = max(1, round(length.value / an_epoch / 5))
    else:
        every = 1 if an_epoch >= LONG_EPOCH else 2
    return {"validate_every": every, "checkpoint_every": every, "log_every": 10}


def renew(config: dict[str, Any], data: dict[str, Any], length: Length, seed: int, images: int) -> None:
    """Make an earlier run's config that of a further run, which starts from the earlier one's weights.

    Args:
        config: it is changed; how the earlier run went on from its own start is taken out.
        data: its new section.
        length: of the further run.
        seed: of the further run.
        images: how many it learns from.
    """
    for key in OF_A_START:
        config.pop(key, None)
    config["data"] = data
    config["schedule"] = course_over(config["schedule"], length)
    an_epoch = steps_in_epoch(images, data["loader"].get("batch_size", 1))
    training = {key: value for key, value in (config.get("training") or {}).items() if key != "device"}
    config["training"] = {**training, "seed": seed, "patience": None, **rhythm(length, an_epoch)}


def course_over(schedule: Mapping[str, Any], length: Length) -> dict[str, Any]:
    """An earlier run's ``schedule`` over another length, for which its milestones become one, near the end.

    Args:
        schedule: the section of the earlier run.
        length: of the new one.
    """
    if schedule.get(length.unit) == length.value:
        return dict(schedule)
    course = {key: v for key, v in schedule.items() if key not in (*UNITS, "milestones")}
    if course.get("policy") == "multistep":
        last = LAST_DROP * length.value
        course["milestones"] = [max(1, round(last)) if length.unit == "steps" else last]
    return {**course, **length.section()}


def settled(config: dict[str, Any], options: Sequence[str], source: str) -> Config:
    """Return the config of a new run, with the imports that it needs.

    Args:
        config: without the options.
        options: ``a.b=c`` on top.
        source: what messages call the origin of its keys.

    Raises:
        ConfigError: an option is wrong.
    """
    used = override(Config(config, {}, source), parse_options(options))
    if imports := sorted({*(used.get("imports") or []), *needed_imports(used.data)}):
        used.data["imports"] = imports
    return used
