"""The second phase: base and novel classes from K objects each, from where the base training left off."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from tldet import checkpoint
from tldet.coco.partial_labels import LABELED
from tldet.config import read_config
from tldet.data.index import AnnotationIndex
from tldet.data.shots import ORIGIN
from tldet.errors import CheckpointError, ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.models.meta_tensors import without_storage
from tldet.models.two_stage.box import BoxBranch
from tldet.text import counted
from tldet.workflows.fewshot.plan import FEWSHOT_VARIANTS
from tldet.workflows.study.job import Job
from tldet.workflows.training.options import Request
from tldet.workflows.training.parts import with_bad_image
from tldet.workflows.training.run_config import renew, settled
from tldet.workflows.training.run_folder import CONFIG_NAME, RunFiles
from tldet.workflows.training.run_options import Length
from tldet.workflows.training.train import Outcome, run_training

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
_NOTE = "# Written by `tldet fewshot`: base and novel classes from K objects each.\n"
INHERITED = ("transforms", "masks")  # keys of data.train that K-shot runs inherit
BOX_LAYER = "bbox_pred"  # what corrects boxes, in every head


def second_phase(job: Job, console: Console | None = None) -> Outcome:
    """Train on K shots, or go on with it.

    Raises:
        TldetError: the base checkpoint, an option or the data are wrong.
    """
    path = job.folder / CONFIG_NAME
    if checkpoint.steps_in(job.folder):
        return run_training(read_config(path), Request(console=console), job.folder, resume=True)
    _tell(job)
    start = checkpoint.load_checkpoint(job.call["base"])
    used = settled(second_config(start, job), job.call["cfg_options"], str(job.call["base"]))
    files = RunFiles(job.folder, used, _NOTE)
    return run_training(used, Request(console=console), job.folder, init_from=job.call["base"], files=files)


def _tell(job: Job) -> None:
    told = json.loads(Path(job.call["train"]).read_bytes())[ORIGIN]
    meaning = "count as background" if told["as_background"] else f"teach nothing ({LABELED} of each image)"
    counts = told["counts"]
    there = counted(counts["objects"], "object"), counted(counts["images"], "image")
    log.info("%s on %s; further objects on them are not used and %s: %d", *there, meaning, counts["dropped_objects"])


def open_base(path: Path, novel: Sequence[str], base: Sequence[str]) -> dict[str, Any]:
    """A base checkpoint that can be gone on from.

    Args:
        path: the checkpoint.
        novel: names of the novel classes.
        base: names of the others.

    Raises:
        CheckpointError: it cannot be read, describes no training, knows a novel class or lacks a base class.
    """
    state = checkpoint.load_checkpoint(path)
    config, names = state["config"], state["meta"]["class_names"]
    if not config["model"].get("head") or not config["data"].get("train") or not config.get("optimizer"):
        raise CheckpointError(f"{path}: its config describes no training of a detector; give that of a tldet run")
    if met := [name for name in novel if name in names]:
        raise CheckpointError(f"{path}: was trained on class {met[0]!r}, which --novel says is new to it")
    if lacking := [name for name in base if name not in names]:
        raise CheckpointError(
            f"{path}: does not know class {lacking[0]!r}: name it in --novel, or train the base on it"
        )
    return state


def second_config(start: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """The base run's config, but for what the second phase does otherwise.

    Args:
        start: the base run's checkpoint.
        job: the run.
    """
    config: dict[str, Any] = copy.deepcopy(start["config"])
    data = _data(config["data"], start["meta"]["input"], job)
    renew(config, data, Length.of(job.length), int(job.factors["seed"]), job.images)
    config["model"].pop("weights", None)
    config["model"]["head"]["num_classes"] = len(AnnotationIndex.load(job.call["train"]).class_names)
    set_variant(config, job.variant)
    config["optimizer"]["lr"] *= job.call["lr_factor"]
    return config


def set_variant(config: dict[str, Any], name: str) -> None:
    """Change a config to a way of fine-tuning.

    Raises:
        ConfigError: the way does not go with the detector.
    """
    variant, model = FEWSHOT_VARIANTS[name], config["model"]
    if not variant.cosine and (model["head"].get("roi") or {}).get("cosine"):
        raise ConfigError(
            f"--variants {name}: needs a linear classifier, but the base checkpoint has a cosine classifier; "
            "use --variants tfa"
        )
    detector = without_storage(lambda: build_detector(model))
    if variant.cosine:
        if not any(isinstance(part, BoxBranch) for part in detector.modules()):
            kind = model["head"]["type"]
            raise ConfigError(f"--variants {name}: needs a two-stage detector for its cosine classifier, not {kind}")
        model["head"].setdefault("roi", {})["cosine"] = "fixed"
    if variant.frozen:
        config["freeze"] = {"layers": all_but(detector, last_layers(detector))}


def last_layers(detector: Detector) -> list[str]:
    """The layers that classify and correct boxes (and masks): what TFA fine-tunes."""
    head: Any = detector.head
    boxes = [name for name, _ in head.named_modules() if name.rpartition(".")[2] == BOX_LAYER]
    return [f"head.{name}" for name in dict.fromkeys([*getattr(head, "class_layers", ()), *boxes])]


def all_but(model: nn.Module, spared: Sequence[str], prefix: str = "") -> list[str]:
    """The fewest modules and parameters, by their dotted names, that hold all of a model but the ``spared`` modules."""
    names = [prefix + name for name, _ in model.named_parameters(recurse=False)]
    for name, part in model.named_children():
        path = prefix + name
        if path in spared or next(part.parameters(), None) is None:
            continue
        inside = any(one.startswith(f"{path}.") for one in spared)
        names += all_but(part, spared, f"{path}.") if inside else [path]
    return names


def _data(base: Mapping[str, Any], size: Mapping[str, int], job: Job) -> dict[str, Any]:
    """Return the ``data`` section: K shots for training, no validation split, and the split evaluated at the end."""
    train = {key: value for key, value in base["train"].items() if key in INHERITED}
    train.update(type="CocoDataset", annotations=job.call["train"], images=job.call["images"])
    annotations, images = job.val
    test: dict[str, Any] = {"type": "CocoDataset", "annotations": annotations, "images": images}
    test["transforms"] = [{"type": "Resize", **size}]
    data = {"train": train, "test": test, "loader": base.get("loader") or {}}
    written: dict[str, Any] = with_bad_image({"data": data}, job.call.get("on_bad_image") or train.get("on_bad_image"))[
        "data"
    ]
    return written
