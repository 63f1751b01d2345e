"""``tldet study``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import (
    add_bad_image,
    add_data,
    add_length,
    add_settings,
    positive_float,
    positive_int,
    study_config,
)

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "compare ways to start, backbones or amounts of data at an equal budget"
HINTS = {"resume": "not needed, the same command continues the study in --out"}


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    help_transfer = "scratch, frozen, fine-tuned, ... on the same data"
    transfer = kinds.add_parser("transfer", help=help_transfer, description=help_transfer)
    transfer.add_argument("--variants", nargs="+", metavar="ARM", help="what is compared (default: all there are)")
    help_backbones = "backbones in one recipe on the same data"
    backbones = kinds.add_parser("backbones", help=help_backbones, description=help_backbones)
    backbones.add_argument("names", nargs="+", metavar="BACKBONE", help="see tldet models --backbones")
    help_data = "AP by the number of training images, and what more would bring"
    data = kinds.add_parser("data", help=help_data, description=help_data)
    text = "training images to expect the AP of; repeatable (default: 2 and 4 times as many as there are)"
    data.add_argument("--predict", type=positive_int, action="append", default=[], metavar="N", help=text)
    for one, usual in ((transfer, "1"), (backbones, "1"), (data, "0.05 0.1 0.25 0.5 1")):
        _add_shared(one, usual)


def _add_shared(parser: ArgumentParser, fractions: str) -> None:
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="where runs, numbers and plot go")
    parser.add_argument("--model", metavar="NAME", help="recipe (default: faster_rcnn_lite0)")
    text = f"of the training images, nested and by class (default: {fractions})"
    usual = [float(value) for value in fractions.split()]
    parser.add_argument("--fractions", type=positive_float, nargs="+", default=usual, metavar="F", help=text)
    text = "of training and of the subsets (default: 0 1 2)"
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help=text)
    add_length(parser)
    add_bad_image(parser)
    add_settings(parser)


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.study.study import study_backbones, study_data, study_transfer

    config = study_config(args)
    if args.kind == "transfer":
        variants = {} if args.variants is None else {"variants": args.variants}
        study_transfer(config, fractions=args.fractions, console=console, **variants)
    elif args.kind == "backbones":
        study_backbones(config, args.names, args.fractions, console)
    else:
        study_data(config, args.fractions, args.predict, console)
