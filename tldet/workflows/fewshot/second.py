"""K-shot training of base and novel classes, from the weights of base training."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from tldet import checkpoint
from tldet.coco.partial_labels import LABELED
from tldet.coco.raw import read_field
from tldet.config import read_config
from tldet.data.index import AnnotationIndex
from tldet.data.relabeled import coco_type
from tldet.data.shots import ORIGIN
from tldet.errors import CheckpointError, ConfigError
from tldet.models.detector import Detector, build_detector
from tldet.models.meta_tensors import without_storage
from tldet.models.two_stage.box import BoxBranch
from tldet.text import counted
from tldet.workflows.fewshot.plan import FEWSHOT_VARIANTS
from tldet.workflows.requests import RunRequest
from tldet.workflows.study.job import Job
from tldet.workflows.training.outcome import Outcome
from tldet.workflows.training.run_config import derive_config, final_config
from tldet.workflows.training.run_folder import CONFIG_NAME, RunFiles
from tldet.workflows.training.run_options import Length
from tldet.workflows.training.schema import with_bad_image
from tldet.workflows.training.train import run_training

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
_NOTE = "# Written by `tldet fewshot`: K-shot training of base and novel classes.\n"
INHERITED = ("transforms", "masks")  # keys of data.train that K-shot runs inherit
BOX_LAYER = "bbox_pred"  # box regression layer of every head


def second_phase(job: Job, console: Console | None = None) -> Outcome:
    """Train on K shots, or resume this.

    Raises:
        TldetError: the base checkpoint, an option or the data are wrong.
    """
    path = job.folder / CONFIG_NAME
    if checkpoint.steps_in(job.folder):
        return run_training(read_config(path), RunRequest(console=console), job.folder, resume=True)
    _log_shots(job)
    start = checkpoint.load_checkpoint(job.call["base"])
    used = final_config(second_config(start, job), job.call["cfg_options"], str(job.call["base"]))
    files = RunFiles(job.folder, used.dump(), _NOTE)
    return run_training(used, RunRequest(console=console), job.folder, init_from=job.call["base"], files=files)


def _log_shots(job: Job) -> None:
    record = read_field(Path(job.call["train"]), ORIGIN)
    further = "treated as background" if record["as_background"] else f"ignored ({LABELED})"
    counts = record["counts"]
    shots = counted(counts["objects"], "object"), counted(counts["images"], "image")
    log.info("%s on %s; %s on these images %s", *shots, counted(counts["dropped_objects"], "further object"), further)


def open_base(path: Path, novel: Sequence[str], base: Sequence[str]) -> dict[str, Any]:
    """Read and check a base checkpoint.

    Args:
        path: the checkpoint.
        novel: names of the novel classes.
        base: names of the base classes.

    Raises:
        CheckpointError: the checkpoint cannot be read, has no training config, has a novel class or lacks a base class.
    """
    state = checkpoint.load_checkpoint(path)
    config, names = state["config"], state["meta"]["class_names"]
    if not config["model"].get("head") or not config["data"].get("train") or not config.get("optimizer"):
        raise CheckpointError(f"{path}: its config has no training of a detector; use a checkpoint of a tldet run")
    if met := [name for name in novel if name in names]:
        raise CheckpointError(f"{path}: was trained on class {met[0]!r}, which is in --novel")
    if missing := [name for name in base if name not in names]:
        raise CheckpointError(
            f"{path}: lacks class {missing[0]!r}; add it to --novel, or train the base detector on it"
        )
    return state


def second_config(start: Mapping[str, Any], job: Job) -> dict[str, Any]:
    """Return the config of a K-shot run: that of base training with other data, length, classes and layers.

    Args:
        start: checkpoint of base training.
        job: the run.
    """
    config: dict[str, Any] = copy.deepcopy(start["config"])
    data = _data(config["data"], start["meta"]["input"], job)
    derive_config(config, data, Length.of(job.length), int(job.factors["seed"]), job.images)
    config["model"].pop("weights", None)
    config["model"]["head"]["num_classes"] = len(AnnotationIndex.load(job.call["train"]).class_names)
    set_variant(config, job.variant)
    config["optimizer"]["lr"] *= job.call["lr_factor"]
    return config


def set_variant(config: dict[str, Any], name: str) -> None:
    """Change a config to a variant of fine-tuning.

    Raises:
        ConfigError: the variant does not fit the detector.
    """
    variant, model = FEWSHOT_VARIANTS[name], config["model"]
    if not variant.cosine and (model["head"].get("roi") or {}).get("cosine", "none") != "none":
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
    """Return the layers that classify and regress boxes (and masks), which TFA fine-tunes."""
    head: Any = detector.head
    boxes = [name for name, _ in head.named_modules() if name.rpartition(".")[2] == BOX_LAYER]
    return [f"head.{name}" for name in dict.fromkeys([*getattr(head, "class_layers", ()), *boxes])]


def all_but(model: nn.Module, spared: Sequence[str], prefix: str = "") -> list[str]:
    """Return the smallest set of dotted module and parameter names that covers a model without ``spared`` modules."""
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
    train.update(coco_type(job.sources), annotations=job.call["train"], images=job.call["images"])
    annotations, images = job.val
    test: dict[str, Any] = {**coco_type(job.sources), "annotations": annotations, "images": images}
    test["transforms"] = [{"type": "Resize", **size}]
    data = {"train": train, "test": test, "loader": base.get("loader") or {}}
    written: dict[str, Any] = with_bad_image({"data": data}, job.call.get("on_bad_image"))["data"]
    return written
