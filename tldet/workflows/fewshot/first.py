"""The first phase: a detector of the base classes, and what is checked before it is trained."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.checkpoint import steps_in
from tldet.config import load
from tldet.data.shots import write_base
from tldet.errors import TrainingError
from tldet.workflows.fewshot.measure import finished, measured
from tldet.workflows.fewshot.plan import Plan
from tldet.workflows.fewshot.second import open_base, set_arm
from tldet.workflows.fewshot.summary import Groups
from tldet.workflows.finetune import DEFAULT_MODEL, finetune
from tldet.workflows.train import Outcome

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


def check_arms(plan: Plan, arms: Sequence[str]) -> None:
    """Whether base training and arms go together.

    Raises:
        TldetError: they do not, or the given base checkpoint is not of the base classes.
    """
    if plan.base is not None and (given := [name for name, value in plan.phase_one.items() if value not in (None, [])]):
        raise TrainingError(f"--base brings a finished base training: leave out its {', '.join(given)}")
    if plan.base is not None:
        config = open_base(plan.base, plan)["config"]
    else:
        config = load(plan.phase_one["model"] or DEFAULT_MODEL).data
    for arm in dict.fromkeys(arms):
        set_arm(copy.deepcopy(config), arm)


def base_training(plan: Plan, folder: Path, console: Console | None) -> tuple[Path, Groups]:
    """The checkpoint that all runs start from, and what it reaches on the base classes."""
    out = folder / "base"
    if (done := finished(out)) is not None:
        return done
    start = plan.base or _trained(plan, out, console)
    return measured(plan, start, out, novel=False)


def _trained(plan: Plan, out: Path, console: Console | None) -> Path:
    if steps_in(out):
        outcome = finetune(out=out, resume=True, console=console)
    else:
        (out / "best.pt").unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
        outcome = _begun(plan, out, console)
    return outcome.trained()


def _begun(plan: Plan, out: Path, console: Console | None) -> Outcome:
    train = write_base(plan.train.annotations, plan.novel, out / "train.json")
    val = write_base(plan.val.annotations, plan.novel, out / "val.json", keep_pictures=True)
    log.info(
        "base training without %s: %d objects on %d pictures; %d pictures with novel objects only are left out, "
        "%d novel objects on the others are background",
        *(", ".join(plan.novel), train.objects, train.pictures, train.dropped_pictures, train.dropped_objects),
    )
    own = [f"data.val.images={str(plan.val.images.resolve())!r}"]  # beside those of training, or elsewhere
    given = {**plan.phase_one, "options": [*own, *plan.phase_one["options"]]}
    files: dict[str, Any] = {"train_json": train.path, "val_json": val.path, "images": plan.train.images}
    return finetune(out=out, console=console, **files, **given)
