"""``tldet import``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.command_requests import ImportRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "convert a checkpoint of another toolkit (MMDetection, torchvision, D-FINE, ...) to a tldet checkpoint"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, ImportRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.import_checkpoint import import_checkpoint

    import_checkpoint(**arguments_of(args, ImportRequest, console))
