"""What a run reached, and how one knows that it is done."""

from __future__ import annotations

import logging
from pathlib import Path

from tldet.output import write_json
from tldet.workflows.fewshot.plan import Plan, read_json
from tldet.workflows.fewshot.summary import Groups
from tldet.workflows.test import test

log = logging.getLogger(__name__)
RESULT = "result.json"  # in a run's folder once it is measured


def measured(plan: Plan, path: Path, out: Path, *, novel: bool = True) -> tuple[Path, Groups]:
    """A checkpoint with its AP and AP50 over the base and over the novel classes, kept in the folder ``out``.

    Args:
        plan: says what is measured on.
        path: the checkpoint.
        out: the run's folder.
        novel: whether the checkpoint knows the novel classes; if not, theirs is -1, nothing to measure.
    """
    result = test(path, data=plan.measured.annotations, images=plan.measured.images)
    groups = {"base": result.over(plan.base_classes), "novel": result.over(plan.novel if novel else ())}
    write_json(out / RESULT, {"checkpoint": str(path), **groups, "per_class": result.per_class}, indent=2)
    return path, groups


def finished(out: Path) -> tuple[Path, Groups] | None:
    """What :func:`measured` kept in a run's folder; None where the run is not done."""
    done = read_json(out / RESULT)
    if done is None:
        return None
    log.info("%s: done before", out)
    return Path(done["checkpoint"]), {group: done[group] for group in ("base", "novel")}
