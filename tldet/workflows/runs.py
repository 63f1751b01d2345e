"""The folder of a run: its config, the rhythm of its checkpoints, and going on with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from tldet import checkpoint
from tldet.config import Config, Part, load, parse_options
from tldet.engine.distributed import World, current, joined
from tldet.errors import TldetError, TrainingError
from tldet.locks import locked
from tldet.output import write_text
from tldet.workflows.parts import checked_settings

CONFIG_NAME = "config.py"
LONG_EPOCH = 100  # steps; each of a run of minutes is then worth a measurement
# Sections that a run started from the config of another run does not inherit.
OF_A_START = ("freeze", "l2_sp", "class_match", "distill", "hooks")
LAST_DROP = 0.9  # share of a run with milestones after which the learning rate drops (the configs of TFA)
T = TypeVar("T")


@contextmanager
def using(folder: str | Path) -> Iterator[World]:
    """Join the processes of a run and lock its folder.

    Raises:
        OutputError: another run uses the folder, or it cannot be written.
        ConfigError: see :func:`~tldet.engine.distributed.joined`.
    """
    with joined() as world, ExitStack() as stack:
        world.first(lambda: stack.enter_context(locked(folder)))
        yield world


def refuse_earlier_run(folder: Path) -> None:
    """A new run must not write over an earlier one.

    Raises:
        TrainingError: the folder holds checkpoints.
    """
    if checkpoint.steps_in(folder) or (folder / "best.pt").exists():
        raise TrainingError(f"{folder} holds an earlier run: --resume goes on with it, or choose another --out")


def steps_in_epoch(pictures: int, batch: int) -> int:
    """Steps in a pass over the pictures, with the processes there are."""
    return max(1, pictures // (batch * current().size))


def rhythm(length: Mapping[str, Any], an_epoch: int) -> dict[str, Any]:
    """Measure and save a few times in a short run, each epoch in a long one; ``an_epoch`` counts steps."""
    if "epochs" in length:
        every = max(1, length["epochs"] // 10)
    elif "steps" in length:
        every = max(1, round(length["steps"] / an_epoch / 5))
    else:
        every = 1 if an_epoch >= LONG_EPOCH else 2
    return {"validate_every": every, "checkpoint_every": every, "log_every": 10}


def renew(config: dict[str, Any], data: dict[str, Any], length: Mapping[str, Any], seed: int, pictures: int) -> None:
    """Make an earlier run's config that of a further run, which starts from the earlier one's weights.

    Args:
        config: it is changed; how the earlier run went on from its own start is taken out.
        data: its new section.
        length: ``epochs``, ``steps`` or ``minutes``.
        seed: of the further run.
        pictures: how many it learns from.
    """
    for key in OF_A_START:
        config.pop(key, None)
    config["data"] = data
    config["schedule"] = course_over(config["schedule"], length)
    an_epoch = steps_in_epoch(pictures, data["loader"].get("batch_size", 1))
    config["training"] = {**config.get("training", {}), "seed": seed, "patience": None, **rhythm(length, an_epoch)}


def course_over(schedule: Mapping[str, Any], length: Mapping[str, Any]) -> dict[str, Any]:
    """An earlier run's ``schedule`` over another length, for which its milestones become one, near the end.

    Args:
        schedule: the section of the earlier run.
        length: ``epochs``, ``steps`` or ``minutes`` of the new one.
    """
    if all(schedule.get(unit) == value for unit, value in length.items()):
        return dict(schedule)
    course = {key: v for key, v in schedule.items() if key not in ("epochs", "minutes", "steps", "milestones")}
    if course.get("policy") == "multistep":
        last = LAST_DROP * next(iter(length.values()))
        course["milestones"] = [max(1, round(last)) if "steps" in length else last]
    return {**course, **length}


def write_config(folder: Path, config: dict[str, Any], note: str) -> Path:
    """The config that is used, for reading, changing and resuming.

    Args:
        folder: the run's; it is made.
        config: what is written.
        note: the comment on top, in which ``{path}`` and ``{folder}`` are filled in.

    Raises:
        OutputError: the file cannot be written.
    """
    path = folder / CONFIG_NAME
    text = note.format(path=path, folder=folder)
    write_text(path, text + Config(config).dump(), sync=True)
    return path


def settle_config(folder: Path, config: dict[str, Any], options: Sequence[str], note: str) -> Config:
    """Write a new run's config with the options in it, which a resumed run needs too; it as it is then loaded.

    Args:
        folder: the run's; it is made.
        config: without the options.
        options: ``a.b=c`` on top.
        note: see :func:`write_config`.

    Raises:
        TldetError: the folder cannot be written, or an option is wrong.
    """
    used = load(write_config(folder, config, note), parse_options(options))
    write_config(folder, used.data, note)
    return used


def resume_run(
    folder: Path,
    given: Mapping[str, object],
    options: Sequence[str],
    schema: Mapping[str, Part],
    note: str,
    go_on: Callable[[Config], T],
) -> T:
    """Go on by the config in the run's folder; options stay in it once a step was saved under them.

    Args:
        folder: the run's.
        given: what else was asked for, by option; only None goes with resuming.
        options: ``a.b=c`` on top of the config.
        schema: what the config may hold.
        note: see :func:`write_config`.
        go_on: trains by the config.

    Raises:
        TrainingError: there is nothing to resume, or more is asked for than the config can take.
    """
    kept = folder / CONFIG_NAME
    with using(folder) as world:
        used, last, before = world.first(lambda: _kept_config(kept, given, options, schema, note))
        try:
            return go_on(used)
        except TldetError:
            if options and world.main and checkpoint.steps_in(folder)[:1] == last:
                write_text(kept, before, sync=True)
            raise


def _kept_config(
    kept: Path, given: Mapping[str, object], options: Sequence[str], schema: Mapping[str, Part], note: str
) -> tuple[Config, list[Path], str]:
    """The config to go on by, with the options in its file; the newest checkpoint, and the file's text before."""
    if more := [f"--{name}" for name, value in given.items() if value is not None]:
        raise TrainingError(
            f"--resume goes on by {kept} and takes no {', '.join(more)}: leave that out, or change the config by "
            "--cfg-options, such as schedule.steps=2000"
        )
    if not kept.is_file():
        raise TrainingError(f"nothing to resume: {kept} does not exist")
    used, last = load(kept, parse_options(options)), checkpoint.steps_in(kept.parent)[:1]
    checked_settings(used, schema)
    before = kept.read_text(encoding="utf-8")
    if options:
        write_config(kept.parent, used.data, note)
    return used, last, before
