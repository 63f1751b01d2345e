"""``tldet fewshot``, start to end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.checkpoint import steps_in
from tldet.config import load, parse_options
from tldet.data.shots import LABELLED, write_shots
from tldet.output import make_folder, write_json
from tldet.workflows.fewshot.first import base_training, check_arms
from tldet.workflows.fewshot.measure import finished, measured
from tldet.workflows.fewshot.plan import Cell, Plan, cells, check, remember
from tldet.workflows.fewshot.second import open_base, second_config
from tldet.workflows.fewshot.summary import Groups, table, to_json
from tldet.workflows.finetune import resolve_layout
from tldet.workflows.runs import CONFIG_NAME, write_config
from tldet.workflows.train import train

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
RESULTS = "fewshot.json"
NOTE = "# Written by `tldet fewshot`: base and novel classes from K objects each.\n"


def fewshot(
    data: str | Path | None = None,
    *,
    out: str | Path,
    novel: Sequence[str],
    shots: Sequence[int] = (1, 5, 10),
    seeds: Sequence[int] = (0, 1, 2),
    arms: Sequence[str] = ("tfa",),
    base: str | Path | None = None,
    model: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    shot_steps: int = 300,
    lr_factor: float = 0.1,
    train_json: str | Path | None = None,
    val_json: str | Path | None = None,
    images: str | Path | None = None,
    options: Sequence[str] = (),
    shot_options: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Train on the base classes, fine-tune on K shots of all classes, measure both groups apart (Wang et al. 2020).

    Called again with the same arguments it goes on; finished runs are taken as they are, more arms, shots and seeds are
    added to them. Numbers are measured on the test split where the data have one, else on the validation split, by the
    last checkpoint of a run: there is no choosing among checkpoints by labels that few-shot learning does not have.

    Args:
        data: a folder in one of the usual layouts.
        out: where everything goes.
        novel: names of the novel classes.
        shots: numbers K of objects a class.
        seeds: of the draw of the shots, and of the training on them.
        arms: of :data:`~tldet.workflows.fewshot.plan.ARMS`.
        base: a tldet checkpoint trained on the base classes, instead of training one.
        model: see :func:`~tldet.workflows.finetune.finetune`, also of what follows; all of it is the base training's.
        epochs: its length.
        minutes: its length.
        steps: its length.
        shot_steps: length of a run on K shots.
        lr_factor: its learning rate as a multiple of the base training's.
        train_json: annotations to train on.
        val_json: annotations to measure on.
        images: picture folder of both.
        options: ``a.b=c`` on top of the base training's config, from which the other runs inherit.
        shot_options: ``a.b=c`` on top of the config of the runs on K shots.
        console: shows progress and the table.

    Returns:
        What is in ``OUT/fewshot.json``.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder = Path(out)
    layout = resolve_layout(data, train_json, val_json, images, folder, 0)
    phase_one = {"model": model, "epochs": epochs, "minutes": minutes, "steps": steps, "options": list(options)}
    second = (shot_steps, lr_factor, tuple(shot_options))
    assert layout.val is not None  # a lone JSON was split
    parts = (layout.train, layout.val, layout.test or layout.val)
    plan = Plan(*parts, tuple(dict.fromkeys(novel)), None if base is None else Path(base), *second, phase_one)
    wanted = cells(arms, shots, seeds)
    check(plan, wanted)
    check_arms(plan, arms)
    remember(plan, make_folder(folder))
    try:
        return _run(plan, wanted, folder, console)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; {folder} keeps what is done, and the same command goes on") from None


def _run(plan: Plan, wanted: Sequence[Cell], folder: Path, console: Console | None) -> dict[str, Any]:
    """Base training, then run by run; the results are on disk after each."""
    start, before = base_training(plan, folder, console)
    runs: dict[Cell, Groups] = {}
    for number, cell in enumerate(wanted, 1):
        _say(console, f"run {number} of {len(wanted)}: {cell.arm}, {cell.shots} shots, seed {cell.seed}")
        runs[cell] = _second_phase(plan, cell, start, folder / cell.name, console)
        write_json(folder / RESULTS, to_json(before, runs), indent=2)
    if console is not None:
        console.print(table(before, runs))
    return to_json(before, runs)


def _second_phase(plan: Plan, cell: Cell, start: Path, folder: Path, console: Console | None) -> Groups:
    """What a run on K shots reaches; it is done, gone on with, or taken from its folder."""
    if (done := finished(folder)) is not None:
        return done[1]
    config = folder / CONFIG_NAME
    if steps_in(folder):
        outcome = train(config, work_dir=folder, resume=True, console=console)
    else:
        _write_config(plan, cell, start, folder)
        outcome = train(config, work_dir=folder, init_from=start, console=console)
    for older in steps_in(folder)[1:]:
        older.unlink()  # it served resuming; an experiment has many runs
    return measured(plan, outcome.trained(), folder)[1]


def _write_config(plan: Plan, cell: Cell, start: Path, folder: Path) -> None:
    drawn = write_shots(plan.train.annotations, cell.shots, cell.seed, folder / "train.json")
    log.info(
        "%d objects on %d pictures; %d further objects on these are not given (complete classes of a picture: its %s)",
        *(drawn.objects, drawn.pictures, drawn.dropped_objects, LABELLED),
    )
    config = second_config(open_base(start, plan), plan, cell, drawn)
    path = write_config(folder, config, NOTE)
    if plan.shot_options:
        write_config(folder, load(path, parse_options(plan.shot_options)).data, NOTE)


def _say(console: Console | None, text: str) -> None:
    if console is not None:
        console.rule(text)
