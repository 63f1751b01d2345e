"""``tldet pretrain``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.settings import add_compile, add_settings, options_of
from tldet.commands.shared import add_length, add_resume, add_seed

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "train a backbone by classification, for a detector"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    data = parser.add_mutually_exclusive_group()
    data.add_argument("--data", metavar="DIR", help="folder with train/CLASS/*.jpg and, if there is one, val/CLASS")
    data.add_argument("--demo", action="store_true", help="generate data/digit_crops and train on it")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="output directory of the run and backbone.safetensors"
    )
    parser.add_argument("--backbone", metavar="B", help="see tldet models (default: efficientnet_lite0)")
    add_length(parser)
    add_seed(parser)
    add_resume(parser)
    add_compile(parser)
    add_settings(parser)


def run(args: Namespace, console: Console) -> None:
    """Pretrain."""
    from tldet.commands.following import show_next_of_pretraining
    from tldet.workflows.pretrain import pretrain

    outcome = pretrain(
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
    show_next_of_pretraining(outcome, console)
