"""``tldet check``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.check.request import CheckRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "find problems in a dataset, and repair those with an unambiguous correction"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, CheckRequest)


def run(args: Namespace, console: Console) -> int:
    """Run the command; return 1 if a finding is as severe as ``--fail-on``."""
    from tldet.workflows.check.check import check

    return int(check(**arguments_of(args, CheckRequest, console)).failed)
