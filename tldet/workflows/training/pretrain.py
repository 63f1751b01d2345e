"""``tldet pretrain``: pretrain a backbone on image folders, without a config file."""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tldet.config import Config, parse_options, read_config
from tldet.data.folder import find_train_val, scan
from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.models.zoo import find_backbone
from tldet.system.inputs import real_path
from tldet.workflows.requests import takes
from tldet.workflows.training.choose import given_batch
from tldet.workflows.training.request import PretrainRequest
from tldet.workflows.training.run_config import final_config, intervals_for, schedule_for, steps_in_epoch, using
from tldet.workflows.training.run_folder import RunFiles, StoredRun, read_run, refuse_earlier_run, resumes
from tldet.workflows.training.run_options import Length
from tldet.workflows.training.schema import PRETRAIN_SCHEMA
from tldet.workflows.training.train_classifier import Pretrained, train_classifier

log = logging.getLogger(__name__)
RECIPE = "pretrain/lite0_imagenet"
_EPOCHS = 100  # default length
_NOTE = "# Written by `tldet pretrain`; resume with `tldet pretrain --out {folder} --resume`.\n"
LARGEST_INPUT, SAMPLED = 224, 32  # input size in pixels; images whose size is read
DEMO, DETECTION_DEMO = "data/digit_crops", "data/digits"


@takes(PretrainRequest)
def pretrain(request: PretrainRequest) -> Pretrained:
    """Train a backbone to classify images and write it to ``out/backbone.safetensors``.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder = request.folder
    with using(folder) as world:
        stored = world.first(lambda: _resumed(request))
        if stored is not None:
            resume, report = stored.resume, request.report
            return train_classifier(stored.config, request, folder, resume=resume, files=stored.files, report=report)
        used = world.first(lambda: _new_config(request))
        files = RunFiles(folder, used.dump(), _NOTE, request.record())
        return train_classifier(used, request, folder, files=files, report=request.report)


def _resumed(request: PretrainRequest) -> StoredRun | None:
    """Return the run to resume; None to start one."""
    if request.resume and resumes(request.folder, startable=request.demo or request.data is not None):
        return read_run(request.folder, request.given(), request.overrides(), PRETRAIN_SCHEMA, _NOTE)
    return None


def _new_config(request: PretrainRequest) -> Config:
    """Return the config of a new run: the recipe with data, input size, backbone and length filled in.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    refuse_earlier_run(request.folder)
    source = _generate() if request.demo else request.data
    if source is None:
        raise DataError("use --data DIR with train/CLASS/*.jpg, or --demo")
    config = _filled(Path(source), request)
    return final_config(
        {**config, "model": _with_backbone(config["model"], request.network)}, request.overrides(), RECIPE
    )


def _generate() -> Path:
    """Generate the demo datasets."""
    from tldet.data import digits

    log.info("generating digit crops in %s and images with digits in %s", DEMO, DETECTION_DEMO)
    digits.generate(Path(DETECTION_DEMO))
    return digits.generate_crops(Path(DEMO))


def _filled(folder: Path, request: PretrainRequest) -> dict[str, Any]:
    """Return the recipe with data, input size and length filled in."""
    config = read_config(RECIPE).data
    train, _ = find_train_val(folder)
    names = [name for one in scan(train).values() for name in one]
    config["data"] = _data(config["data"], folder, _size(train, names), mirror=not request.demo)
    length = request.length or Length("epochs", _EPOCHS)
    config["schedule"] = schedule_for(config["schedule"], length)
    batch = given_batch(parse_options(request.overrides())) or config["data"]["loader"]["batch_size"]
    config["training"].update(seed=request.seed_value, **intervals_for(length, steps_in_epoch(len(names), batch)))
    return config


def _data(recipe: dict[str, Any], folder: Path, size: int, *, mirror: bool) -> dict[str, Any]:
    """Return the ``data`` section of the recipe with folders and input size filled in."""
    data = copy.deepcopy(recipe)
    train, val = find_train_val(folder)
    for split, path in (("train", train), ("val", val or train)):
        data[split]["folder"] = str(real_path(path))
        data[split]["transforms"][0]["size"] = size
    if val is None:
        log.info("%s: no val folder; 10 %% of each class is held out for validation", folder)
        data["train"]["part"], data["val"]["part"] = "train", "val"
    if not mirror:
        data["train"]["transforms"][1]["p"] = 0.0  # a mirrored 3 is not a digit
    return data


def _with_backbone(model: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a model with a randomly initialized backbone, up to its coarsest level."""
    found = find_backbone(name)
    backbone = found.config(found.strides[-1:], scratch=True)
    return {**model, "backbone": backbone, "preprocess": {"mean": list(found.mean), "std": list(found.std)}}


def _size(folder: Path, names: Sequence[str]) -> int:
    """Return the input size: 224 pixels, or the median short side of smaller images."""
    if not names:
        return LARGEST_INPUT
    sampled = [names[i] for i in np.linspace(0, len(names) - 1, min(SAMPLED, len(names))).astype(int)]
    short = float(np.median([min(read_image(folder / name).shape[:2]) for name in sampled]))
    size = min(LARGEST_INPUT, max(32, round(short / 32) * 32))
    log.info("input size %dx%d (median short side of the images %d px)", size, size, short)
    return size
