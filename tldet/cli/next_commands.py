"""Commands that usually follow a training run, for copying to a terminal."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.errors import DataError

if TYPE_CHECKING:
    from rich.console import Console

    from tldet.workflows.training.train_classifier import Pretrained


def show_next(checkpoint: str | Path | None, console: Console) -> None:
    """Print commands to evaluate and use the detector of a run; nothing without a checkpoint."""
    from tldet.transfer.provenance import checkpoint_outline

    if checkpoint is None:
        return
    path, data = str(checkpoint), checkpoint_outline(Path(checkpoint))["config"]["data"]
    split = data.get("test") or data.get("val") or data["train"]
    test = command("test", path) if data.get("test") else f"{command('test', path)} --data FOLDER_OR_JSON"
    drawn = str(Path(checkpoint).parent / "predictions")
    _show([test, command("predict", path, _image_folder(split), "--out", drawn)], console)


def _image_folder(split: Mapping[str, Any]) -> str:
    """Return a folder with images of a split: data of ``tldet extend`` refer to images in other folders."""
    from tldet.data.index import AnnotationIndex

    folder = split.get("images")
    if folder is None:
        return "IMAGES"
    try:
        name = AnnotationIndex.load(split["annotations"]).file_names[0]
    except (DataError, KeyError):
        return str(folder)
    path = Path(os.path.normpath(Path(folder, name)))
    return str(folder if path.is_relative_to(os.path.normpath(folder)) else path.parent)


def show_next_of_pretraining(outcome: Pretrained, console: Console) -> None:
    """Print the command to fine-tune a detector with the pretrained backbone."""
    from tldet.transfer.provenance import checkpoint_outline

    best = outcome.train.best_checkpoint or outcome.train.checkpoint
    if outcome.backbone is None or best is None:
        return
    section = checkpoint_outline(best)["config"]["model"]["backbone"]
    timm = section["type"] in ("TimmBackbone", "ViTBackbone")
    name = f"timm:{section['name']}" if timm else section.get("name", section["type"])
    network = [] if "efficientnet_lite0" in name else ["--backbone", name]  # backbone of the recipes
    given = command("finetune", *network, "--weights", str(outcome.backbone))
    _show([f"{given} --data FOLDER --out FOLDER"], console)


def command(*words: str) -> str:
    """Return a ``tldet`` command quoted for the shell of this system."""
    join = subprocess.list2cmdline if os.name == "nt" else shlex.join
    return join(["tldet", *words])


def _show(commands: list[str], console: Console) -> None:
    console.print("next:", *commands, sep="\n  ", markup=False, highlight=False)
