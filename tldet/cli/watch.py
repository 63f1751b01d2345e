"""``tldet watch``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.watch.request import WatchRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "monitor a training run in the terminal"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, WatchRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.watch.watch import watch

    watch(**arguments_of(args, WatchRequest, console))
