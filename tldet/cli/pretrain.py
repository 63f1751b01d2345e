"""``tldet pretrain``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.training.request import PretrainRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "pretrain a backbone by image classification"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, PretrainRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.cli.next_commands import show_next_of_pretraining
    from tldet.workflows.training.pretrain import pretrain

    outcome = pretrain(**arguments_of(args, PretrainRequest, console))
    show_next_of_pretraining(outcome, console)
