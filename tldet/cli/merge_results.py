"""``tldet merge-results``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.predict.request import MergeResultsRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "merge the JSON Lines files of tldet predict --shard, and convert them"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, MergeResultsRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.predict.merge_results import merge_results

    merge_results(**arguments_of(args, MergeResultsRequest, console))
