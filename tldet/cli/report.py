"""``tldet report``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.report.request import ReportRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "analyze the errors of a detector, and write an HTML report"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, ReportRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.report.command import report

    report(**arguments_of(args, ReportRequest, console))
