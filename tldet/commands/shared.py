"""Arguments that several commands take."""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def add_data(parser: ArgumentParser) -> None:
    """Add the data: a folder, or its splits one by one."""
    parser.add_argument("--data", metavar="DIR", help="folder with images and COCO JSON")
    parser.add_argument("--train", metavar="JSON", help="training annotations")
    parser.add_argument("--val", metavar="JSON", help="validation annotations")
    images = "image directory of all splits, or its name within each split (default: searched)"
    parser.add_argument("--images", metavar="DIR", help=images)


def add_length(parser: ArgumentParser) -> None:
    """Add the length of training in one of three units."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive_int, metavar="N", help="train for N epochs")
    length.add_argument("--minutes", type=positive_float, metavar="M", help="budget of training time")
    length.add_argument(
        "--steps", type=whole_number, metavar="N", help="train for N steps; 0 evaluates the initial weights"
    )


def add_seed(parser: ArgumentParser) -> None:
    """Add ``--seed``."""
    parser.add_argument("--seed", type=int, metavar="S", help="seed (default: 0)")


def add_resume(parser: ArgumentParser, folder: str = "--out") -> None:
    """Add ``--resume``; ``folder`` is the option that names the folder of the run."""
    text = f"resume the run in {folder}, or start it if there is no checkpoint yet"
    parser.add_argument("--resume", action="store_true", help=text)


def add_bad_image(parser: ArgumentParser) -> None:
    """Add ``--on-bad-image``."""
    parser.add_argument(
        "--on-bad-image",
        choices=["error", "skip"],
        help="images that are missing, unreadable, truncated or of another size than in the JSON: stop before the "
        "run (error, default) or list and skip them",
    )


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


def add_class_match(parser: ArgumentParser) -> None:
    """How the classes of a start are known again."""
    parser.add_argument(
        "--class-aliases",
        metavar="FILE",
        help="start classes of other names: JSON {new name: name in the start}, or lines 'new name: name in the start'",
    )
    parser.add_argument(
        "--fold-names",
        nargs="+",
        action="extend",
        choices=["case", "plural"],
        default=[],
        help="also know classes again that differ in letter case, or in singular and plural",
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


def share(text: str) -> float:
    """Parse a number above 0 and at most 1."""
    return number(text, "above 0 and at most 1", lambda value: 0 < value <= 1)


def score(text: str) -> float:
    """Parse a number from 0 to 1."""
    return number(text, "from 0 to 1", lambda value: 0 <= value <= 1)


def whole_number(text: str) -> int:
    """Parse an integer of at least 0."""
    return int(number(text, "an integer of at least 0", lambda value: value >= 0, int))


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
