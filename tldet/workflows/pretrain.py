"""``tldet pretrain``: from a folder of classes to a backbone, no config to write."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tldet.config import Config, load
from tldet.data.folder import find_parts, scan
from tldet.data.images import read_image
from tldet.errors import DataError, TrainingError
from tldet.inputs import real_path
from tldet.models.zoo import find_backbone
from tldet.workflows.parts import PRETRAIN_SCHEMA
from tldet.workflows.runs import refuse_earlier_run, resume_run, rhythm, settle_config, steps_in_epoch, using
from tldet.workflows.train_classifier import Pretrained, train_classifier

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
RECIPE = "pretrain/lite0_imagenet"
DEFAULT_BACKBONE = "efficientnet_lite0"
NOTE = "# Written by `tldet pretrain`; `tldet pretrain --out {folder} --resume` goes on.\n"
LARGEST, LOOKED_AT = 224, 32  # pixels; pictures
DEMO, DETECTION_DEMO = "data/digit_crops", "data/digits"


def pretrain(
    data: str | Path | None = None,
    *,
    out: str | Path,
    demo: bool = False,
    backbone: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    resume: bool = False,
    options: Sequence[str] = (),
    console: Console | None = None,
) -> Pretrained:
    """Train a backbone to classify pictures and write it to ``out/backbone.safetensors``.

    Args:
        data: a folder with ``train/CLASS`` and ``val/CLASS``; without ``val`` a tenth of each class is held out.
        out: the run's folder; the config that was used is written there.
        demo: generate single digits to train on, and the detection data they prepare for, instead of ``data``.
        backbone: a network of torchvision or timm, ``efficientnet_lite0`` when None; ``tldet models --backbones`` lists
            them.
        epochs: length in passes over the data; 100 when no length is given.
        minutes: length as a budget of training time.
        steps: length in steps.
        seed: what every random draw comes from, the held-out part too; 0 when None.
        resume: go on with the run in ``out``, by the config in it; only ``options`` change it.
        options: ``a.b=c`` on top of what is chosen; ``model.backbone.weights=...`` starts from weights.
        console: shows progress and the numbers.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder = Path(out)
    if resume:
        given = {"data": data, "demo": demo or None, "backbone": backbone, "epochs": epochs, "minutes": minutes}
        given |= {"steps": steps, "seed": seed}
        go_on = partial(train_classifier, work_dir=folder, resume=True, console=console)
        return resume_run(folder, given, options, PRETRAIN_SCHEMA, NOTE, go_on)
    seed = 0 if seed is None else seed
    if seed < 0:
        raise TrainingError(f"--seed must be at least 0, not {seed}")
    length = next(
        ({k: v} for k, v in (("epochs", epochs), ("minutes", minutes), ("steps", steps)) if v is not None), None
    )

    def chosen() -> Config:
        refuse_earlier_run(folder)
        source = _generate() if demo else data
        if source is None:
            raise DataError("give --data DIR with train/CLASS/*.jpg, or --demo")
        config = _filled(Path(source), length or {"epochs": 100}, seed, mirror=not demo)
        _set_backbone(config["model"], backbone or DEFAULT_BACKBONE)
        return settle_config(folder, config, options, NOTE)

    with using(folder) as world:
        return train_classifier(world.first(chosen), folder, console=console)


def _generate() -> Path:
    from tldet.data import digits

    log.info("generating single digits in %s, and digits to detect in %s", DEMO, DETECTION_DEMO)
    digits.generate(Path(DETECTION_DEMO))
    return digits.generate_crops(Path(DEMO))


def _filled(folder: Path, length: dict[str, Any], seed: int, *, mirror: bool) -> dict[str, Any]:
    """The recipe with data, size, workers and length filled in."""
    config = load(RECIPE).data
    train, val = find_parts(folder)
    pictures = scan(train)
    names = [name for one in pictures.values() for name in one]
    size = _size(train, names)
    data = config["data"]
    for part, place in (("train", train), ("val", val or train)):
        data[part]["folder"] = str(real_path(place))
        data[part]["transforms"][0]["size"] = size
    if val is None:
        log.info("%s: has no val folder: a tenth of each class is held out to measure on", folder)
        data["train"]["part"], data["val"]["part"] = "train", "measure"
    if not mirror:
        data["train"]["transforms"][1]["p"] = 0.0  # a mirrored 3 is no digit
    config["schedule"].pop("epochs")
    config["schedule"].update(length)
    an_epoch = steps_in_epoch(len(names), data["loader"]["batch_size"])
    config["training"].update(seed=seed, **rhythm(length, an_epoch))
    return config


def _set_backbone(model: dict[str, Any], name: str) -> None:
    """The network of a name with random weights, up to its coarsest level, and its normalisation."""
    found = find_backbone(name)
    model["backbone"] = found.config(found.strides[-1:], scratch=True)
    model["preprocess"] = {"mean": list(found.mean), "std": list(found.std)}


def _size(folder: Path, names: Sequence[str]) -> int:
    """224 pixels, or less where most pictures are smaller."""
    if not names:
        return LARGEST
    looked = [names[i] for i in np.linspace(0, len(names) - 1, min(LOOKED_AT, len(names))).astype(int)]
    short = float(np.median([min(read_image(folder / name).shape[:2]) for name in looked]))
    size = min(LARGEST, max(32, round(short / 32) * 32))
    log.info("input %d x %d: half of the pictures have a short side of %d or less", size, size, short)
    return size
