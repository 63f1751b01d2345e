"""Base training of a few-shot experiment."""

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
from tldet.system.inputs import file_hash
from tldet.text import counted
from tldet.workflows.fewshot.plan import DEVICE, Setup
from tldet.workflows.fewshot.second import open_base, set_variant
from tldet.workflows.fewshot.splits import ANNOTATIONS_FOLDER
from tldet.workflows.study.job import RUNS, Job
from tldet.workflows.training.outcome import Outcome
from tldet.workflows.training.recipes import load_recipe
from tldet.workflows.training.request import DEFAULT_MODEL

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


def check_variants(setup: Setup) -> None:
    """Check that the variants fit the base recipe or checkpoint.

    Raises:
        TldetError: they do not, or the checkpoint is not a detector of the base classes.
    """
    request = setup.request
    if request.base is None:
        recipe = load_recipe(request.model).data
    else:
        keys = [key for key in parse_options(request.overrides()) if key != DEVICE]
        named = {"--model": request.model != DEFAULT_MODEL, f"--cfg-options {', '.join(keys)}": bool(keys)}
        named |= {f"--{name}": True for name in setup.length()}
        if conflict := [name for name, there in named.items() if there]:
            raise TrainingError(f"--base and {conflict[0]} cannot be combined: base training is finished")
        recipe = open_base(Path(request.base), setup.novel, setup.base_classes)["config"]
    for variant in request.variants:
        set_variant(copy.deepcopy(recipe), variant)


def base_job(setup: Setup) -> Job:
    """Plan base training, or the evaluation of the given checkpoint, and write its annotations."""
    request, novel, folder = setup.request, setup.novel, setup.request.folder / ANNOTATIONS_FOLDER
    test = write_base(setup.test.annotations, novel, folder / "base_test.json", keep_images=True)
    train = write_base(setup.train.annotations, novel, folder / "base_train.json")
    call, data = _call(setup, train.path, folder / "base_val.json"), setup.hashes()
    if request.base is not None:
        call = {"checkpoint": str(request.base), "cfg_options": setup.device(), **request.bad_images()}
        data = {**data, "base": file_hash(Path(request.base))}
    else:
        log.info(
            "base training without %s: %s on %s; %s with novel objects only left out, %s on other "
            "images treated as background",
            *(", ".join(novel), counted(train.objects, "object"), counted(train.images, "image")),
            *(counted(train.dropped_images, "image"), counted(train.dropped_objects, "novel object")),
        )
    return Job(
        factors={"variant": "base"},
        folder=request.folder / RUNS / "base",
        call=call,
        length=setup.length(),
        val=(str(test.path.resolve()), str(setup.test.images.resolve())),
        images=train.images,
        data=data,
        sources=setup.sources,
    )


def _call(setup: Setup, train: Path, val: Path) -> dict[str, Any]:
    """Return the arguments of ``finetune``; there is no validation, so that the test split selects no checkpoint."""
    there = AnnotationIndex.load(setup.val.annotations).class_names
    if novel := [name for name in setup.novel if name in there]:
        write_base(setup.val.annotations, novel, val, keep_images=True)
    else:
        val = setup.val.annotations
    own = ["training.validate_every=None", f"data.val.images={str(setup.val.images.resolve())!r}"]
    return {
        "train": str(train.resolve()),
        "val": str(val.resolve()),
        "images": str(setup.train.images.resolve()),
        "model": setup.model,
        "cfg_options": [*own, *setup.request.overrides()],
        **setup.request.bad_images(),
    }


def given_base(job: Job, _: Console | None) -> Outcome:
    """Return the outcome of finished base training."""
    path = Path(job.call["checkpoint"])
    return Outcome(job.folder, TrainResult.of(TrainState(), "given", path, path), None)
