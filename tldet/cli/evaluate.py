"""``tldet evaluate``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_engine, file_name

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "score a COCO results file"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--gt", required=True, metavar="G", help="ground truth, COCO JSON")
    parser.add_argument("--dt", required=True, metavar="D", help="detections, COCO results JSON")
    parser.add_argument("--type", choices=["bbox", "segm"], default="bbox", help="what is compared")
    add_engine(parser)
    parser.add_argument("--json", type=file_name, metavar="F", help="write the twelve numbers there at full precision")


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.evaluate import evaluate

    evaluate(args.gt, args.dt, type=args.type, engine=args.engine, json_path=args.json, console=console)
