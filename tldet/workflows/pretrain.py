"""``tldet pretrain``: from a folder of classes to a backbone, no config to write."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tldet.config import Config, load, parse_options
from tldet.data.folder import find_parts, scan
from tldet.data.images import read_image
from tldet.errors import DataError, TrainingError
from tldet.inputs import real_path
from tldet.models.zoo import find_backbone
from tldet.workflows.choose import given_batch
from tldet.workflows.parts import PRETRAIN_SCHEMA
from tldet.workflows.run_folder import Kept, RunFiles, continues, kept_run, refuse_earlier_run
from tldet.workflows.runs import rhythm, settled, steps_in_epoch, using
from tldet.workflows.train_classifier import Pretrained, train_classifier

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
RECIPE = "pretrain/lite0_imagenet"
DEFAULT_BACKBONE = "efficientnet_lite0"
NOTE = "# Written by `tldet pretrain`; resume with `tldet pretrain --out {folder} --resume`.\n"
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
        resume: resume the run in ``out`` with its config, changed only by ``options``; start it if there is no
            checkpoint yet. Other arguments may be given again, but must be those that the run was started with.
        options: ``a.b=c`` on top of what is chosen; ``model.backbone.weights=...`` starts from weights.
        console: shows progress and the numbers.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder = Path(out)
    given = {"data": data, "demo": demo or None, "backbone": backbone, "epochs": epochs, "minutes": minutes}
    given |= {"steps": steps, "seed": seed}
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
        changed = parse_options(options)
        config = _filled(Path(source), length or {"epochs": 100}, seed, changed, mirror=not demo)
        _set_backbone(config["model"], backbone or DEFAULT_BACKBONE)
        return settled(config, options, RECIPE)

    def resumed() -> Kept | None:
        if resume and continues(folder, startable=demo or data is not None):
            return kept_run(folder, given, options, PRETRAIN_SCHEMA, NOTE)
        return None

    with using(folder) as world:
        kept = world.first(resumed)
        if kept is not None:
            return train_classifier(kept.config, folder, resume=kept.resume, console=console, files=kept.files)
        used = world.first(chosen)
        files = RunFiles(folder, used, NOTE, {**given, "backbone": backbone or DEFAULT_BACKBONE, "seed": seed})
        return train_classifier(used, folder, console=console, files=files)


def _generate() -> Path:
    from tldet.data import digits

    log.info("generating single digits in %s, and digits to detect in %s", DEMO, DETECTION_DEMO)
    digits.generate(Path(DETECTION_DEMO))
    return digits.generate_crops(Path(DEMO))


def _filled(
    folder: Path, length: dict[str, Any], seed: int, options: Mapping[str, Any], *, mirror: bool
) -> dict[str, Any]:
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
    an_epoch = steps_in_epoch(len(names), given_batch(options) or data["loader"]["batch_size"])
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
    log.info("input size %dx%d (median short side of the images %d px)", size, size, short)
    return size
