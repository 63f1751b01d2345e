"""``tldet evaluate``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.command_requests import EvaluateRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "evaluate a COCO results file"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, EvaluateRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.evaluate import evaluate

    evaluate(**arguments_of(args, EvaluateRequest, console))
