"""``tldet extend``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.extend.request import ExtendRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "add classes to a detector without forgetting the existing ones"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, ExtendRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.cli.next_commands import show_next
    from tldet.workflows.extend.extend import extend

    outcome = extend(**arguments_of(args, ExtendRequest, console))
    show_next(outcome.checkpoint, console)
