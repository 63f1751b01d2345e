"""``tldet test``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.cli.process import import_without_compiler
from tldet.workflows.command_requests import TestRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "evaluate a checkpoint (COCO box and mask mAP)"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, TestRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    import_without_compiler()
    from tldet.workflows.test import test

    test(**arguments_of(args, TestRequest, console))
