"""``tldet predict``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.shared import add_device, add_nms, add_precision, file_name, score

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "run a detector on images and video"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a tldet checkpoint")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images, folders, globs, videos or a camera number")
    parser.add_argument("--out", metavar="D", help="output directory of images and videos with drawn detections")
    parser.add_argument("--json", type=file_name, metavar="F", help="output file, COCO results JSON")
    parser.add_argument("--annotations", metavar="JSON", help="COCO JSON whose image and category ids --json uses")
    parser.add_argument("--score", type=score, default=0.3, metavar="T", help="score threshold (default: %(default)s)")
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
