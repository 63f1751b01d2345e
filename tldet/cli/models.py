"""``tldet models``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.command_requests import ModelsRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "list detectors and backbones with parameters and GFLOPs"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, ModelsRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.models import models

    models(**arguments_of(args, ModelsRequest, console))
