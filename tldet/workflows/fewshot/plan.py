"""What an experiment consists of, checked before anything is trained, and remembered in its folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.shots import check_novel, draw
from tldet.errors import DataError, TrainingError
from tldet.output import write_json

log = logging.getLogger(__name__)
SETTINGS = "settings.json"


@dataclass(frozen=True)
class Arm:
    """A way to fine-tune on K shots.

    Attributes:
        frozen: all but the layers that classify and correct boxes stay as the base training left them.
        cosine: the classifier goes by directions, see :class:`~tldet.models.cosine.CosineClassifier`.
    """

    frozen: bool
    cosine: bool


ARMS = {  # Wang et al. 2020: TFA with cosine similarity, TFA with a plain classifier, and FRCN+ft-full
    "tfa": Arm(frozen=True, cosine=True),
    "fc": Arm(frozen=True, cosine=False),
    "full": Arm(frozen=False, cosine=False),
}


@dataclass(frozen=True)
class Cell:
    """One run: an arm, K, and the seed of its shots and of its training."""

    arm: str
    shots: int
    seed: int

    @property
    def name(self) -> str:
        """The run's folder."""
        return f"{self.arm}_{self.shots}shot_seed{self.seed}"


@dataclass(frozen=True)
class Plan:
    """What decides the numbers of an experiment, but for which arms, shots and seeds are asked for.

    Attributes:
        train: what K shots and base classes are drawn from.
        val: what the base training is watched on.
        measured: what all numbers are measured on.
        novel: names of the novel classes.
        base: the checkpoint of the base training; None where the experiment does it itself.
        shot_steps: length of a run on K shots.
        lr_factor: its learning rate as a multiple of the base training's.
        shot_options: ``a.b=c`` on top of its config.
        phase_one: what the base training is called with.
    """

    train: Split
    val: Split
    measured: Split
    novel: tuple[str, ...]
    base: Path | None
    shot_steps: int
    lr_factor: float
    shot_options: tuple[str, ...]
    phase_one: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...]:
        """All class names of the data to train on."""
        return AnnotationIndex.load(self.train.annotations).class_names

    @property
    def base_classes(self) -> tuple[str, ...]:
        """Those that are not novel."""
        return tuple(name for name in self.classes if name not in self.novel)


def cells(arms: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> list[Cell]:
    """Every combination once, all seeds of one setting side by side.

    Raises:
        TrainingError: a seed is negative.
    """
    if min(seeds) < 0:
        raise TrainingError(f"--seeds must be at least 0, not {min(seeds)}")
    return list(dict.fromkeys(Cell(*one) for one in product(arms, shots, seeds)))


def check(plan: Plan, wanted: Sequence[Cell]) -> None:
    """Whether the data can give all that is asked for.

    Raises:
        DataError: a novel class is unknown, a class has fewer objects than shots, or nothing of it can be measured.
    """
    train, measured = (AnnotationIndex.load(one.annotations) for one in (plan.train, plan.measured))
    check_novel(train, plan.novel)
    for shots in {cell.shots for cell in wanted}:
        draw(train, shots, seed=0)  # what a class has does not depend on the seed
    there = {measured.class_names[label] for label in np.unique(measured.labels[~measured.crowd])}
    if lacking := [name for name in plan.novel if name not in there]:
        raise DataError(
            f"{measured.path}: has no object of novel class {lacking[0]!r}, so nothing of it can be measured: "
            "measure on annotations that have some (--val)"
        )
    if unmeasured := [name for name in plan.base_classes if name not in there]:
        log.warning("%s: has no object of %s: not in the base AP", measured.path, ", ".join(unmeasured))


def remember(plan: Plan, folder: Path) -> None:
    """Write what decides the numbers, or hold it against what an earlier call wrote.

    Raises:
        TrainingError: the folder holds an experiment that differs; the first difference is named.
    """
    path = folder / SETTINGS
    ours = json.loads(json.dumps(asdict(plan), default=str))
    theirs = read_json(path)
    if theirs is None:
        write_json(path, ours, indent=2)
        return
    for key in ours:
        if theirs.get(key) != ours[key]:
            raise TrainingError(
                f"{folder} holds an experiment with another {key}: {theirs.get(key)}, not {ours[key]}; give the same, "
                "or choose another --out (arms, shots and seeds may be added)"
            )


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON of ours holds; None where there is none, or a kill cut it off."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content
