"""``tldet finetune``: from a folder to a detector, no config to write."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torchvision

from tldet import checkpoint
from tldet.config import Config, load, parse_options
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Layout, Split, find_images, find_layout, split_one
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.workflows.choose import Choices, choose_for, transforms
from tldet.workflows.train import CONFIG_NAME, Outcome, train

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
NOTE = "# Written by `tldet finetune`; `tldet train {path} --work-dir {folder} --resume` goes on.\n"


def finetune(
    data: str | Path | None = None,
    *,
    out: str | Path,
    model: str = "faster_rcnn_lite0",
    backbone: str | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    scratch: bool = False,
    train_json: str | Path | None = None,
    val_json: str | Path | None = None,
    images: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    options: Sequence[str] = (),
    console: Console | None = None,
) -> Outcome:
    """Fine-tune a recipe on COCO-format data and measure it.

    Args:
        data: a folder in one of the usual layouts.
        out: the run's folder; the config that was used is written there.
        model: ``faster_rcnn_r50``, ``faster_rcnn_lite0``, ``retinanet_r50`` or ``retinanet_lite0``.
        backbone: a ResNet of torchvision or a model of timm instead of the recipe's.
        epochs: length in passes over the data.
        minutes: length as a budget of training time; start-up and evaluation do not count.
        steps: length in steps.
        seed: what every random draw comes from.
        scratch: start from random weights.
        train_json: annotations to train on, instead of what ``data`` holds.
        val_json: annotations to measure on.
        images: picture folder of both.
        resume: go on with the run in ``out``.
        init_from: a tldet checkpoint to start from.
        options: ``a.b=c`` on top of what is chosen.
        console: shows what was chosen, progress and the numbers.

    Raises:
        TldetError: the data, a name or a value is wrong.
    """
    folder = Path(out)
    if resume:
        kept = folder / CONFIG_NAME
        if not kept.is_file():
            raise TrainingError(f"nothing to resume: {kept} does not exist")
        return train(load(kept, parse_options(options)), work_dir=folder, resume=True, console=console)
    refuse_earlier_run(folder)
    recipe = load(model)
    layout = _layout(data, train_json, val_json, images, folder, seed)
    index = AnnotationIndex.load(layout.train.annotations)
    choices = choose_for(recipe, index, epochs=epochs, minutes=minutes, steps=steps)
    config = _filled(recipe, layout, index, choices, seed, scratch)
    if backbone:
        replace_backbone(config, backbone, scratch)
    for line in choices.reasons:
        log.info("%s", line)
    used = load(write_config(folder, config, NOTE), parse_options(options))
    write_config(folder, used.data, NOTE)  # with the options, which a resumed run needs too
    return train(used, work_dir=folder, init_from=init_from, console=console)


def _layout(
    data: str | Path | None,
    train_json: str | Path | None,
    val_json: str | Path | None,
    images: str | Path | None,
    out: Path,
    seed: int,
) -> Layout:
    """What to train and to measure on; one JSON alone is split."""
    if train_json is None and data is None:
        raise DataError("give --data DIR, or --train JSON with --images DIR")
    if train_json is None:
        layout = find_layout(Path(str(data)))
    else:
        layout = Layout(_split(_inside(data, train_json), images, data))
    if val_json is not None:
        layout = Layout(layout.train, _split(_inside(data, val_json), images, data), None)
    if layout.val is None and layout.test is not None:
        layout = Layout(layout.train, layout.test, None)
    if layout.val is None:
        part, held = split_one(layout.train, out / "split", seed=seed)
        layout = Layout(part, held)
    return layout


def _inside(data: str | Path | None, name: str | Path) -> Path:
    """A path as given, or inside the data folder."""
    given = Path(name)
    inside = Path(data) / given if data is not None else given
    return inside if inside.is_file() and not given.is_file() else given


def _split(path: Path, images: str | Path | None, data: str | Path | None) -> Split:
    if images is None:
        return Split(path, find_images(path, Path(data) if data is not None else path.parent))
    inside = Path(data) / images if data is not None else Path(images)
    return Split(path, inside if inside.is_dir() and not Path(images).is_dir() else Path(images))


def _filled(
    recipe: Config, layout: Layout, index: AnnotationIndex, choices: Choices, seed: int, scratch: bool
) -> dict[str, Any]:
    """The recipe with data, classes, sizes and length filled in."""
    config: dict[str, Any] = recipe.data
    steps_train, steps_val = transforms(choices)
    data = config.setdefault("data", {})
    data["train"] = _section(layout.train, steps_train)
    for name, split in (("val", layout.val), ("test", layout.test)):
        if split is not None:
            data[name] = _section(split, steps_val)
    loader = data.setdefault("loader", {})
    loader["batch_size"] = choices.batch
    config["model"]["head"]["num_classes"] = len(index.class_names)
    schedule = config["schedule"]
    for key in ("epochs", "steps", "minutes"):
        schedule.pop(key, None)
    schedule.update(choices.length)
    training = config.setdefault("training", {})
    training["seed"] = seed
    training.update(rhythm(choices.length, max(1, len(index) // choices.batch)))
    if scratch:
        _from_scratch(config)
    return config


def _section(split: Split, steps: list[dict[str, Any]]) -> dict[str, Any]:
    annotations, images = str(split.annotations.resolve()), str(split.images.resolve())
    return {"type": "CocoDataset", "annotations": annotations, "images": images, "transforms": steps}


def rhythm(length: Mapping[str, Any], an_epoch: int) -> dict[str, Any]:
    """Measure and save a few times in a short run, each epoch in a long one; ``an_epoch`` counts steps."""
    if "epochs" in length:
        every = max(1, length["epochs"] // 10)
    elif "steps" in length:
        every = max(1, round(length["steps"] / an_epoch / 5))
    else:
        every = 2
    return {"validate_every": every, "checkpoint_every": every, "log_every": 10}


def _from_scratch(config: dict[str, Any]) -> None:
    """Random weights learn nothing with frozen layers and the statistics of nothing."""
    config["model"]["backbone"].update(weights=None, frozen_stages=-1, norm="batch")


def replace_backbone(config: dict[str, Any], name: str, scratch: bool) -> None:
    """Another network in the backbone's place, at the same levels."""
    import timm

    old = config["model"]["backbone"]
    levels = [level + (1 if old["type"] == "TorchvisionBackbone" else 0) for level in old["levels"]]
    norm = {"frozen_stages": -1, "norm": "batch"} if scratch else {"frozen_stages": 0, "norm": "frozen"}
    imagenet: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
    if name in torchvision.models.list_models() and name.startswith(("resnet", "resnext", "wide_resnet")):
        weights = str(torchvision.models.get_model_weights(name).DEFAULT)
        new = {"type": "TorchvisionBackbone", "levels": [level - 1 for level in levels]}
        source = f"torchvision:{weights}"
    elif name in {"efficientnet_lite0", "tf_efficientnet_lite0"}:
        name, source, new = "tf_efficientnet_lite0", "package:efficientnet_lite0", {}
        imagenet = {"mean": [127.5] * 3, "std": [127.5] * 3}
    elif timm.is_model(name.partition(".")[0]):
        cfg = timm.get_pretrained_cfg(name)
        if cfg is not None:
            imagenet = {"mean": [255 * m for m in cfg.mean], "std": [255 * s for s in cfg.std]}
        source, new = f"timm:{name}", {}
    else:
        raise ConfigError(f"--backbone {name!r}: neither a ResNet of torchvision nor a model of timm")
    config["model"]["backbone"] = {
        "type": "TimmBackbone",
        "name": name,
        "levels": levels,
        **new,
        "weights": None if scratch else source,
        **norm,
    }
    config["model"]["preprocess"] = imagenet


def refuse_earlier_run(folder: Path) -> None:
    """A new run must not write over an earlier one's config."""
    if checkpoint.steps_in(folder) or (folder / "best.pt").exists():
        raise TrainingError(f"{folder} holds an earlier run: --resume goes on with it, or choose another --out")


def write_config(folder: Path, config: dict[str, Any], note: str) -> Path:
    """The config that is used, for reading, changing and resuming; ``note`` is its first line."""
    path = folder / CONFIG_NAME
    text = note.format(path=path, folder=folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(text + Config(config).dump(), encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written: {error.strerror}; choose another --out") from None
    return path
