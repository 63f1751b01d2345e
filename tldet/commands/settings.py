"""Options of training commands that set keys of the config: one table, and no key set twice."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from tldet.commands.shared import PRECISIONS, number, positive_float, whole_number
from tldet.commands.suggest import CFG_OPTIONS

if TYPE_CHECKING:
    from tldet.workflows.study.data import Wishes

# Options that stand for keys of the config: --batch-size 8 is --cfg-options data.loader.batch_size=8.
SETTINGS: Mapping[str, str] = {
    "batch_size": "data.loader.batch_size",
    "lr": "optimizer.lr",
    "device": "training.device",
    "workers": "data.loader.workers",
    "precision": "training.precision",
    "on_oom": "training.on_oom",
    "compile": "training.compile",
}
UNSCALED = "optimizer.base_batch"  # None with --lr, which is the learning rate itself
# Further options whose values commands write into the config; --cfg-options must not set the same keys.
WRITTEN: Mapping[str, Sequence[str]] = {
    "seed": ["training.seed"],
    "epochs": ["schedule.epochs"],
    "minutes": ["schedule.minutes"],
    "steps": ["schedule.steps"],
    "backbone": ["model.backbone.name"],
    "weights": ["model.weights.source"],
    "train": ["data.train.annotations"],
    "val": ["data.val.annotations"],
    "freeze": ["freeze.layers"],
    "gradual": ["freeze.gradual"],
    "layer_decay": ["optimizer.layer_decay"],
    "l2_sp": ["l2_sp.alpha"],
    "class_aliases": ["class_match.aliases"],
    "fold_names": ["class_match.fold"],
    "on_bad_image": [f"data.{split}.on_bad_image" for split in ("train", "val", "test")],
}


def add_settings(parser: ArgumentParser) -> None:
    """Add the most used settings of training, and ``--cfg-options`` for all others."""
    group = parser.add_argument_group("training settings (default: those of the recipe or config)")
    text = "images per training batch; 'auto': the largest that fits into memory"
    group.add_argument("--batch-size", type=_batch_size, metavar="N", help=text)
    text = "learning rate, used as given (default: that of the recipe, scaled linearly from its batch size to yours)"
    group.add_argument("--lr", type=positive_float, metavar="LR", help=text)
    group.add_argument("--device", metavar="D", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    text = "image loading processes; 0: none (default: chosen from device and CPU count)"
    group.add_argument("--workers", type=whole_number, metavar="N", help=text)
    group.add_argument("--precision", choices=PRECISIONS, help="precision of training")
    text = "if a training step runs out of memory: stop (error, default), or halve the micro-batch and double the "
    group.add_argument("--on-oom", choices=["error", "reduce"], help=text + "gradient accumulation")
    text = "set any key of the config"
    group.add_argument(CFG_OPTIONS, nargs="+", action="extend", default=[], metavar="a.b=c", help=text)


def add_compile(parser: ArgumentParser) -> None:
    """Add ``--compile``."""
    parser.add_argument("--compile", action="store_true", help="use torch.compile where it is measured to pay")


def options_of(args: Namespace) -> list[str]:
    """Return the config options ``a.b=c`` of a command: those of :data:`SETTINGS`, then ``--cfg-options``.

    Raises:
        ConfigError: a key is set twice, by options of both kinds or by ``--cfg-options`` alone.
    """
    keys = _keys(args.cfg_options)
    written = {**WRITTEN, **{name: [path] for name, path in SETTINGS.items()}, "lr": [SETTINGS["lr"], UNSCALED]}
    for name in written:
        if _given(args, name):
            _refuse_overlap(f"--{name.replace('_', '-')}", written[name], keys)
    pairs = [f"{path}={getattr(args, name)!r}" for name, path in SETTINGS.items() if _given(args, name)]
    unscaled = [f"{UNSCALED}=None"] if _given(args, "lr") else []
    return [*pairs, *unscaled, *args.cfg_options]


def wishes_of(args: Namespace) -> Wishes:
    """Return the settings that all runs of a study or few-shot experiment share."""
    from pathlib import Path

    from tldet.workflows.study.data import Wishes

    given: dict[str, Any] = {"model": args.model} if args.model is not None else {}
    return Wishes(
        args.data,
        Path(args.out),
        train_json=args.train,
        val_json=args.val,
        images=args.images,
        on_bad_image=args.on_bad_image,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seeds=args.seeds,
        options=options_of(args),
        **given,
    )


def _given(args: Namespace, name: str) -> bool:
    value = getattr(args, name, None)
    return value is not None and value is not False and value != []


def _keys(pairs: Sequence[str]) -> list[str]:
    """Return the keys of ``--cfg-options``, of which none may silently replace an earlier one."""
    from tldet.config import parse_options
    from tldet.errors import ConfigError

    seen: list[str] = []
    for key in (key for pair in pairs for key in parse_options([pair])):
        if other := next((one for one in seen if f"{one}.".startswith(f"{key}.")), None):
            what = "is given twice" if other == key else f"would replace {other}; set the keys of {key} one by one"
            raise ConfigError(f"{CFG_OPTIONS} {key}: {what}")
        seen.append(key)
    return seen


def _refuse_overlap(option: str, paths: Sequence[str], keys: Sequence[str]) -> None:
    """Refuse config options that set the same key as another option, or a section around it."""
    from tldet.errors import ConfigError

    for path, key in product(paths, keys):
        if f"{key}.".startswith(f"{path}.") or f"{path}.".startswith(f"{key}."):
            raise ConfigError(f"{option} and {CFG_OPTIONS} {key} both set {path}; leave out one of them")


def _batch_size(text: str) -> int | str:
    """Parse a batch size: an integer of at least 1, or ``auto``."""
    if text == "auto":
        return text
    return int(number(text, "'auto' or an integer of at least 1", lambda value: value >= 1, int))
