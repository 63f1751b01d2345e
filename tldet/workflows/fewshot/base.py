"""The first phase: a detector of the base classes."""

from __future__ import annotations

import copy
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.config import parse_options
from tldet.data.index import AnnotationIndex
from tldet.data.shots import write_base
from tldet.engine.state import TrainResult, TrainState
from tldet.errors import TrainingError
from tldet.text import counted
from tldet.transfer.downloads import file_hash
from tldet.workflows.fewshot.plan import DATA, DEVICE, Setup
from tldet.workflows.fewshot.second import open_base, set_variant
from tldet.workflows.study.job import RUNS, Job
from tldet.workflows.training.recipes import load_recipe
from tldet.workflows.training.request import DEFAULT_MODEL
from tldet.workflows.training.train import Outcome

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


def check_variants(setup: Setup) -> None:
    """Whether base training and variants go together.

    Raises:
        TldetError: they do not, or the given base checkpoint is not of the base classes.
    """
    config, given = setup.config, setup.asked.base
    if given is None:
        recipe = load_recipe(config.model).data
    else:
        keys = [key for key in parse_options(config.cfg_options) if key != DEVICE]
        named = {"--model": config.model != DEFAULT_MODEL, f"--cfg-options {', '.join(keys)}": bool(keys)}
        named |= {f"--{name}": True for name in setup.length()}
        if conflict := [name for name, there in named.items() if there]:
            raise TrainingError(f"--base brings a finished base training: leave out its {conflict[0]}")
        recipe = open_base(given, setup.asked.novel, setup.base_classes)["config"]
    for variant in setup.asked.variants:
        set_variant(copy.deepcopy(recipe), variant)


def base_job(setup: Setup) -> Job:
    """The base training, or the given checkpoint's measurement; its JSON files are written."""
    novel, folder = setup.asked.novel, setup.config.out / DATA
    measured = write_base(setup.measured.annotations, novel, folder / "base_measured.json", keep_images=True)
    train = write_base(setup.train.annotations, novel, folder / "base_train.json")
    call, data = _call(setup, train.path, folder / "base_val.json"), setup.hashes()
    if setup.asked.base is not None:
        call = {"checkpoint": str(setup.asked.base), "cfg_options": setup.device(), **setup.config.bad_images()}
        data = {**data, "base": file_hash(setup.asked.base)}
    else:
        log.info(
            "base training without %s: %s on %s; images with novel objects only are left out (%d), novel objects on "
            "the others are background (%d)",
            *(", ".join(novel), counted(train.objects, "object"), counted(train.images, "image")),
            *(train.dropped_images, train.dropped_objects),
        )
    return Job(
        factors={"variant": "base"},
        folder=setup.config.out / RUNS / "base",
        call=call,
        length=setup.length(),
        val=(str(measured.path.resolve()), str(setup.measured.images.resolve())),
        images=train.images,
        data=data,
    )


def _call(setup: Setup, train: Path, val: Path) -> dict[str, Any]:
    """The arguments of ``finetune``; no checkpoint is chosen by what is measured on, as in the second phase."""
    there = AnnotationIndex.load(setup.val.annotations).class_names
    if novel := [name for name in setup.asked.novel if name in there]:
        write_base(setup.val.annotations, novel, val, keep_images=True)
    else:
        val = setup.val.annotations
    own = ["training.validate_every=None", f"data.val.images={str(setup.val.images.resolve())!r}"]
    return {
        "train": str(train.resolve()),
        "val": str(val.resolve()),
        "images": str(setup.train.images.resolve()),
        "model": setup.config.model,
        "cfg_options": [*own, *setup.config.cfg_options],
        **setup.config.bad_images(),
    }


def as_given(job: Job, _: Console | None) -> Outcome:
    """A finished base training, in the place of one that is to be done."""
    path = Path(job.call["checkpoint"])
    return Outcome(job.folder, TrainResult.of(TrainState(), "given", path, path), None)
