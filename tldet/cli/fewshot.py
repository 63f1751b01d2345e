"""``tldet fewshot``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.fewshot.request import FewShotRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "few-shot detection: train on base classes, then add novel classes from K objects each"
HINTS = {"resume": "not needed, the same command resumes the experiment in --out"}


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, FewShotRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.fewshot.fewshot import fewshot

    fewshot(**arguments_of(args, FewShotRequest, console))
