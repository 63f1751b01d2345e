"""Arguments that several commands take."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tldet.workflows.study.plan import Wishes


def add_data(parser: ArgumentParser) -> None:
    """A folder, or its parts one by one."""
    parser.add_argument("--data", metavar="DIR", help="folder with images and COCO JSON")
    parser.add_argument("--train", metavar="JSON", help="training annotations")
    parser.add_argument("--val", metavar="JSON", help="validation annotations")
    images = "image directory of all splits, or its name within each split (default: searched)"
    parser.add_argument("--images", metavar="DIR", help=images)


def add_length(parser: ArgumentParser) -> None:
    """How long training is; one of three."""
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=positive_int, metavar="N", help="train for N epochs")
    length.add_argument("--minutes", type=positive_float, metavar="M", help="budget of training time")
    length.add_argument("--steps", type=whole_number, metavar="N", help="train for N steps; 0 measures the start")


def add_seed(parser: ArgumentParser) -> None:
    """What random draws come from."""
    parser.add_argument("--seed", type=int, metavar="S", help="seed (default: 0)")


def add_options(parser: ArgumentParser) -> None:
    """Keys of the config."""
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="a.b=c", help="override config keys")


def add_compile(parser: ArgumentParser) -> None:
    """The compiler; see :func:`options_of`."""
    parser.add_argument("--compile", action="store_true", help="use torch.compile where it is measured to pay")


def options_of(args: Namespace) -> list[str]:
    """The keys of the config that ``--cfg-options`` and :func:`add_compile` give."""
    return [*(["training.compile=True"] if args.compile else []), *args.cfg_options]


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
        choices=["case", "plural"],
        default=[],
        help="also know classes again that differ in letter case, or in singular and plural",
    )


def add_device(parser: ArgumentParser) -> None:
    """Where a model runs."""
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")


def add_precision(parser: ArgumentParser, auto: str) -> None:
    """What a model computes in; ``auto`` says what is chosen by itself."""
    choices = ["auto", "fp32", "bf16", "fp16"]
    parser.add_argument("--precision", choices=choices, default="auto", help=f"number format (default: {auto})")


def add_engine(parser: ArgumentParser) -> None:
    """Which evaluator scores."""
    parser.add_argument("--engine", choices=["fast", "pycocotools"], default="fast", help="evaluator")


def positive_float(text: str) -> float:
    """An argument that must be a finite number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ArgumentTypeError(f"must be above 0, not {text}")
    return value


def share(text: str) -> float:
    """An argument above 0 and at most 1."""
    value = float(text)
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"must be above 0 and at most 1, not {text}")
    return value


def score(text: str) -> float:
    """An argument from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value


def whole_number(text: str) -> int:
    """An argument that must be 0 or a whole number above it."""
    value = int(text)
    if value < 0:
        raise ArgumentTypeError(f"must be at least 0, not {text}")
    return value


def positive_int(text: str) -> int:
    """An argument that must be a whole number above 0."""
    value = int(text)
    if value < 1:
        raise ArgumentTypeError(f"must be at least 1, not {text}")
    return value


def file_name(text: str) -> str:
    """An argument that names a file to write, found out before the work that fills it."""
    from pathlib import Path

    if text and Path(text).is_dir():
        raise ArgumentTypeError(f"{text} is a folder; give the name of a file")
    return text


def wishes_of(args: Namespace) -> Wishes:
    """What all runs of a study share."""
    from pathlib import Path

    from tldet.workflows.study.plan import Wishes

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
        options=args.cfg_options,
        **given,
    )
