"""``tldet fewshot``."""

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

SUMMARY = "few-shot detection: train on base classes, then learn novel ones from K objects each"
HINTS = {"resume": "not needed, the same command continues the experiment in --out"}


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="where all runs go; the same command goes on there")
    parser.add_argument("--novel", required=True, nargs="+", metavar="CLASS", help="names of the novel classes")
    parser.add_argument(
        "--shots", type=positive_int, nargs="+", default=[1, 5, 10], metavar="K", help="objects a class"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="S", help="of draw and training")
    parser.add_argument(
        "--variants",
        nargs="+",
        default=["tfa"],
        choices=["tfa", "fc", "full"],
        help="tfa: only the last layers learn, cosine classifier; fc: the same with a plain one; full: all learns",
    )
    parser.add_argument("--base", metavar="CKPT", help="a checkpoint of the base classes, instead of training one")
    parser.add_argument("--model", metavar="NAME", help="recipe of the base training (default: faster_rcnn_lite0)")
    add_length(parser)
    parser.add_argument(
        "--shot-steps",
        type=positive_int,
        default=300,
        metavar="N",
        help="steps of a run on K shots (the other lengths are the base training's; default: %(default)s)",
    )
    parser.add_argument(
        "--lr-factor",
        type=positive_float,
        default=0.1,
        metavar="F",
        help="its learning rate as a multiple of the base training's (default: %(default)s)",
    )
    parser.add_argument(
        "--as-background",
        action="store_true",
        help="have objects that are not among the K count as background, as in the papers, instead of teaching nothing",
    )
    add_bad_image(parser)
    add_settings(parser)
    parser.add_argument(
        "--shot-options",
        nargs="+",
        action="extend",
        default=[],
        metavar="a.b=c",
        help="override config keys of the runs on K shots",
    )


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from pathlib import Path

    from tldet.workflows.fewshot.fewshot import fewshot
    from tldet.workflows.fewshot.plan import FewShot

    asked = FewShot(
        args.novel,
        args.shots,
        args.variants,
        None if args.base is None else Path(args.base),
        args.shot_steps,
        args.lr_factor,
        args.shot_options,
        args.as_background,
    )
    fewshot(study_config(args), asked, console)
