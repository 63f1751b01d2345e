"""``tldet pretrain``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.shared import add_compile, add_length, add_on_oom, add_options, add_seed, options_of

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "train a backbone by classification, for a detector"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", metavar="DIR", help="folder with train/CLASS/*.jpg and, if there is one, val/CLASS")
    data.add_argument("--demo", action="store_true", help="generate data/digit_crops and train on it")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the run and backbone.safetensors go")
    parser.add_argument("--backbone", metavar="B", help="see tldet models (default: efficientnet_lite0)")
    add_length(parser)
    add_seed(parser)
    parser.add_argument("--resume", action="store_true", help="go on with the run in --out and its config.py")
    add_compile(parser)
    add_on_oom(parser)
    add_options(parser)


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.pretrain import pretrain

    pretrain(
        args.data,
        out=args.out,
        demo=args.demo,
        backbone=args.backbone,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        resume=args.resume,
        options=options_of(args),
        console=console,
    )
