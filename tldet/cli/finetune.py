"""``tldet finetune``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.training.request import FinetuneRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "fine-tune a detector on your data; no config file needed"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, FinetuneRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.cli.next_commands import show_next
    from tldet.workflows.training.finetune import finetune

    outcome = finetune(**arguments_of(args, FinetuneRequest, console))
    show_next(outcome.checkpoint, console)
