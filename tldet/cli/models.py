"""``tldet models``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import file_name

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "list detectors and backbones with their cost"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--detectors", action="store_true", help="the detectors only")
    parser.add_argument(
        "--backbones", nargs="?", const="", metavar="PATTERN", help="the backbones: a short list, or what fits 'swin*'"
    )
    parser.add_argument("--json", type=file_name, metavar="F", help="write the rows there")


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.models import models

    models(detectors=args.detectors, backbones=args.backbones, json_path=args.json, console=console)
