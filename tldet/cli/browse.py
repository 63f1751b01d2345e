"""``tldet browse``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.browse.request import BrowseRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "write an HTML page with the images, labels and statistics of a dataset"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, BrowseRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.browse.browse import browse

    browse(**arguments_of(args, BrowseRequest, console))
