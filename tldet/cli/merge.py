"""``tldet merge``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_format

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "make one data set of several with different classes"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("inputs", nargs="+", metavar="DATA", help="annotation files or data folders, two or more")
    parser.add_argument("--out", required=True, metavar="DIR", help="a new folder, for tldet finetune --data")
    parser.add_argument(
        "--images",
        action="append",
        default=[],
        metavar="DIR",
        help="image folder of the JSON files, once for all or once for each (default: looked for beside them)",
    )
    add_format(parser)
    parser.add_argument(
        "--aliases", metavar="F", help='classes that are one, as JSON: {"new name": ["old name", ...], ...}'
    )
    parser.add_argument("--copy", action="store_true", help="copy the images too (default: they stay where they are)")


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.merge.merge import merge

    merge(
        args.inputs,
        out=args.out,
        images=args.images,
        format=args.format,
        voc_boxes=args.voc_boxes,
        aliases=args.aliases,
        copy=args.copy,
        console=console,
    )
