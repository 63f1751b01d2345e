"""``tldet predict``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.shared import add_device, add_nms, add_precision, file_name, score

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "run a detector on pictures and video"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a tldet checkpoint")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images, folders, globs, videos or a camera number")
    parser.add_argument("--out", metavar="D", help="write drawn pictures and videos there")
    parser.add_argument("--json", type=file_name, metavar="F", help="write COCO results JSON there")
    parser.add_argument("--annotations", metavar="JSON", help="COCO JSON whose image and category ids --json uses")
    parser.add_argument("--score", type=score, default=0.3, metavar="T", help="least score (default: %(default)s)")
    add_nms(parser)
    add_device(parser)
    add_precision(parser, "the faster one")


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.inference.run import predict

    predict(
        args.checkpoint,
        args.inputs,
        out=args.out,
        json_path=args.json,
        annotations=args.annotations,
        score=args.score,
        device=args.device,
        precision=args.precision,
        nms_per_class=args.nms_per_class,
        console=console,
    )
