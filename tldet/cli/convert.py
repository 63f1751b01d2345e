"""``tldet convert``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.command_requests import ConvertRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "convert a dataset to COCO JSON, YOLO or Pascal VOC"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, ConvertRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.convert import convert

    convert(**arguments_of(args, ConvertRequest, console))
