"""``tldet finetune``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.shared import add_options, arguments_of
from tldet.workflows.request import FinetuneRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "fine-tune on your own data, no config to write"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, FinetuneRequest)


def run(args: Namespace, console: Console) -> None:
    """Fine-tune."""
    from tldet.commands.following import show_next
    from tldet.workflows.finetune import finetune

    outcome = finetune(**arguments_of(args, FinetuneRequest, console))
    show_next(outcome.checkpoint, console)
