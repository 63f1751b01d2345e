"""``tldet split``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.split.request import SplitRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "split a dataset into training, validation and test splits or folds, stratified by class"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, SplitRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.split.split import split

    split(**arguments_of(args, SplitRequest, console))
