"""``tldet compare``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.report.request import CompareRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "compare detectors on the same images, with confidence intervals, and write an HTML report"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, CompareRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.report.compare import compare

    compare(**arguments_of(args, CompareRequest, console))
