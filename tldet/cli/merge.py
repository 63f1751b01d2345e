"""``tldet merge``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.merge.request import MergeRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "merge datasets with different classes into one"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, MergeRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.merge.merge import merge

    merge(**arguments_of(args, MergeRequest, console))
