"""``tldet train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.shared import add_bad_image, add_class_match, add_compile, add_on_oom, add_options, options_of

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "train from a config file"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("config", help="config file, or a name such as faster_rcnn/faster_rcnn_r50_fpn_1x_coco")
    parser.add_argument("--work-dir", metavar="D", help="where checkpoints and the log go (default: runs/CONFIG)")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--resume", action="store_true", help="go on from the newest readable checkpoint in --work-dir")
    start.add_argument("--init-from", metavar="F", help="start from the weights of this tldet checkpoint")
    add_class_match(parser)
    add_bad_image(parser)
    add_compile(parser)
    add_on_oom(parser)
    add_options(parser)


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.train import train
    from tldet.workflows.transfer_options import TransferOptions

    train(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        init_from=args.init_from,
        transfer=TransferOptions(class_aliases=args.class_aliases, fold_names=tuple(args.fold_names)),
        on_bad_image=args.on_bad_image,
        options=options_of(args),
        console=console,
    )
