"""``tldet quickstart``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import positive_float

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "the whole road on generated data"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("--data", metavar="DIR", help="your own folder instead of the generated digits")
    parser.add_argument("--out", default="runs/quickstart", metavar="DIR", help="where it goes (default: %(default)s)")
    parser.add_argument(
        "--minutes", type=positive_float, default=2.75, metavar="M", help="training time of the first run"
    )


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.quickstart import quickstart

    quickstart(args.data, out=args.out, minutes=args.minutes, console=console)
