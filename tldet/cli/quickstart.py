"""``tldet quickstart``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.command_requests import QuickstartRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "train and evaluate on a generated dataset"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, QuickstartRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.quickstart import quickstart

    quickstart(**arguments_of(args, QuickstartRequest, console))
