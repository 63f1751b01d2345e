"""``tldet train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.settings import add_compile, add_settings, options_of
from tldet.commands.shared import add_bad_image, add_class_match, add_resume

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "train from a config file"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("config", help="config file, or a name such as faster_rcnn/faster_rcnn_r50_fpn_1x_coco")
    parser.add_argument("--work-dir", metavar="D", help="output directory (default: runs/CONFIG)")
    add_resume(parser, "--work-dir")
    parser.add_argument("--init-from", metavar="F", help="tldet checkpoint with the initial weights")
    add_class_match(parser)
    add_bad_image(parser)
    add_compile(parser)
    add_settings(parser)


def run(args: Namespace, console: Console) -> None:
    """Train."""
    from tldet.commands.following import show_next
    from tldet.workflows.train import train
    from tldet.workflows.transfer_options import TransferOptions

    outcome = train(
        args.config,
        work_dir=args.work_dir,
        resume=args.resume,
        init_from=args.init_from,
        transfer=TransferOptions(class_aliases=args.class_aliases, fold_names=tuple(args.fold_names)),
        on_bad_image=args.on_bad_image,
        options=options_of(args),
        console=console,
    )
    show_next(outcome.checkpoint, console)
