"""``tldet convert``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_format

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "convert a dataset to COCO JSON, YOLO or Pascal VOC"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("source", metavar="SRC", help="data folder or annotation file, in any format")
    parser.add_argument("--to", required=True, choices=["coco", "yolo", "voc"], help="the new format")
    parser.add_argument("--out", required=True, metavar="DIR", help="output directory, new or empty")
    add_format(parser)
    parser.add_argument("--images", metavar="DIR", help="image directory, or a video (default: searched)")
    parser.add_argument("--classes", metavar="FILE", help="file with the class names to keep, one per line, in order")
    parser.add_argument("--link", action="store_true", help="link to the images instead of copying them")


def run(args: Namespace, console: Console) -> None:
    """Convert."""
    from tldet.workflows.convert import convert

    convert(
        args.source,
        to=args.to,
        out=args.out,
        format=args.format,
        voc_boxes=args.voc_boxes,
        images=args.images,
        classes=args.classes,
        link=args.link,
        console=console,
    )
