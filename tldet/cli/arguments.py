"""Arguments that several commands take, and the settings they stand for."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tldet.workflows.training.options import (
    REQUIRED,
    Option,
    config_options,
    default_of,
    flag,
    options,
    refuse_conflicts,
)
from tldet.workflows.training.request import ExtendRequest, FinetuneRequest, PretrainRequest, TrainRequest
from tldet.workflows.training.run_options import PRECISIONS, BadImageOption, DataOptions, LengthOptions, SettingsOptions

if TYPE_CHECKING:
    from rich.console import Console

    from tldet.workflows.study.data import StudyConfig

# Options that stand for keys of the config: --batch-size 8 is --cfg-options data.loader.batch_size=8.
SETTINGS: Mapping[str, str] = {name: one.sets[0] for name, one in options(SettingsOptions).items() if one.setting}


def add_options(parser: ArgumentParser, request: type[Any]) -> None:
    """Add the options of a request (:mod:`tldet.workflows.training.request`): one argument for each."""
    places: dict[str, Any] = {"": parser}
    sets: dict[str, Any] = {}
    for name, one in options(request).items():
        if one.group not in places:
            places[one.group] = parser.add_argument_group(one.group)
        place = places[one.group]
        if one.exclusive:
            place = sets.get(one.exclusive) or sets.setdefault(one.exclusive, place.add_mutually_exclusive_group())
        add_option(place, name, one, default_of(request, name))


def add_option(place: Any, name: str, one: Option, default: object) -> None:
    """Add one option to a parser or to a group of one.

    Args:
        place: the parser.
        name: name in Python.
        one: the option.
        default: its default; ``REQUIRED`` if it has none.
    """
    given: dict[str, Any] = {"help": one.help}
    if one.positional:
        place.add_argument(name, nargs=None if default is REQUIRED else "?", metavar=one.metavar, **given)
        return
    if one.kind is bool:
        place.add_argument(flag(name, default), dest=name, action=f"store_{str(default is not True).lower()}", **given)
        return
    given |= {"metavar": one.metavar, "choices": one.choices or None, "type": _parser(one)}
    if one.many:
        given |= {"nargs": "+", "action": "extend", "default": []}
    elif one.const is not None:
        given |= {"nargs": "?", "const": one.const}
    place.add_argument(flag(name), dest=name, required=default is REQUIRED, **given)


def _parser(one: Option) -> Callable[[str], Any]:
    """Return what parses a value of an option."""
    numbers = one.numbers
    if numbers is None:
        return one.kind
    what = f"'auto' or {numbers}" if one.auto else str(numbers)

    def parsed(text: str) -> Any:
        return text if one.auto and text == "auto" else number(text, what, numbers.holds, one.kind)

    return parsed


def arguments_of(args: Namespace, request: type[Any], console: Console) -> dict[str, Any]:
    """Return the arguments of the function that takes a request, from a command line.

    Raises:
        ConfigError: a key of the config is set twice.
    """
    table = options(request)
    values = {name: getattr(args, name) for name in table}
    refuse_conflicts(table, values)
    return {**values, "console": console}


def add_data(parser: ArgumentParser) -> None:
    """Add the data: a folder, or its splits one by one."""
    add_options(parser, DataOptions)


def add_format(parser: ArgumentParser) -> None:
    """Add ``--format`` and ``--voc-boxes``, without the other options of data."""
    for name, one in options(DataOptions).items():
        if name in ("format", "voc_boxes"):
            add_option(parser, name, one, None)


def add_length(parser: ArgumentParser) -> None:
    """Add the length of training in one of three units."""
    add_options(parser, LengthOptions)


def add_bad_image(parser: ArgumentParser) -> None:
    """Add ``--on-bad-image``."""
    add_options(parser, BadImageOption)


def add_settings(parser: ArgumentParser) -> None:
    """Add the most used settings of training, and ``--cfg-options`` for all others."""
    add_options(parser, SettingsOptions)


def add_nms(parser: ArgumentParser) -> None:
    """Add ``--nms-per-class`` and ``--nms-agnostic``."""
    nms = parser.add_mutually_exclusive_group()
    nms.add_argument(
        "--nms-per-class",
        dest="nms_per_class",
        action="store_true",
        default=None,
        help="apply NMS within each class (default: setting of the checkpoint, normally this)",
    )
    nms.add_argument(
        "--nms-agnostic",
        dest="nms_per_class",
        action="store_false",
        help="apply NMS across classes: of two near-duplicate boxes, keep the one with the higher score",
    )


def add_import(parser: ArgumentParser) -> None:
    """Add ``--import``."""
    parser.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="import a Python package or file that registers your own components; repeatable",
    )


def add_device(parser: ArgumentParser) -> None:
    """Add ``--device``."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def add_precision(parser: ArgumentParser, auto: str) -> None:
    """What a model computes in; ``auto`` says what is chosen by itself."""
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help=f"precision (default: {auto})")


def add_engine(parser: ArgumentParser) -> None:
    """Which evaluator scores."""
    parser.add_argument("--engine", choices=["fast", "pycocotools"], default="fast", help="evaluator")


def positive_float(text: str) -> float:
    """Parse a finite number above 0."""
    return number(text, "a number above 0", lambda value: 0 < value < float("inf"))


def unit_interval(text: str) -> float:
    """Parse a number from 0 to 1."""
    return number(text, "from 0 to 1", lambda value: 0 <= value <= 1)


def positive_int(text: str) -> int:
    """Parse an integer of at least 1."""
    return int(number(text, "an integer of at least 1", lambda value: value >= 1, int))


def number(text: str, what: str, fits: Callable[[float], bool], kind: Callable[[str], float] = float) -> float:
    """Parse a number for argparse; ``what`` describes those that fit."""
    try:
        value = kind(text)
    except (ValueError, OverflowError):
        value = float("nan")
    if not fits(value):
        raise ArgumentTypeError(f"must be {what}, not {text!r}")
    return value


def file_name(text: str) -> str:
    """An argument that names a file to write, found out before the work that fills it."""
    if os.path.isdir(text):  # noqa: PTH112  (Path.is_dir raises OSError if the name is too long)
        raise ArgumentTypeError(f"{text} is a folder; give the name of a file")
    return text


def options_of(args: Namespace) -> list[str]:
    """Return the config options ``a.b=c`` of a command: those of :data:`SETTINGS`, then ``--cfg-options``.

    Raises:
        ConfigError: a key is set twice, by options of both kinds or by ``--cfg-options`` alone.
    """
    requests = (TrainRequest, FinetuneRequest, PretrainRequest, ExtendRequest)
    table = {name: one for request in requests for name, one in options(request).items()}
    refuse_conflicts(table, vars(args))
    return config_options(table, vars(args))


def study_config(args: Namespace) -> StudyConfig:
    """Return the settings that all runs of a study or few-shot experiment share."""
    from pathlib import Path

    from tldet.workflows.study.data import StudyConfig

    given: dict[str, Any] = {"model": args.model} if args.model is not None else {}
    return StudyConfig(
        args.data,
        Path(args.out),
        train=args.train,
        val=args.val,
        images=args.images,
        format=args.format,
        voc_boxes=args.voc_boxes,
        classes=args.classes,
        on_bad_image=args.on_bad_image,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seeds=args.seeds,
        cfg_options=options_of(args),
        **given,
    )
