"""``tldet train``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.training.request import TrainRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "train a detector from a config file"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, TrainRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.cli.next_commands import show_next
    from tldet.workflows.training.train import train

    outcome = train(**arguments_of(args, TrainRequest, console))
    show_next(outcome.checkpoint, console)
