"""``tldet pretrain``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.shared import add_options, arguments_of
from tldet.workflows.request import PretrainRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "train a backbone by classification, for a detector"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, PretrainRequest)


def run(args: Namespace, console: Console) -> None:
    """Pretrain."""
    from tldet.commands.following import show_next_of_pretraining
    from tldet.workflows.pretrain import pretrain

    outcome = pretrain(**arguments_of(args, PretrainRequest, console))
    show_next_of_pretraining(outcome, console)
