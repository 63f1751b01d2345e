"""``tldet data``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.get_data.request import DataGetRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "download a public dataset as COCO JSON"
_GET = "download a dataset, unpack it and convert it to COCO JSON; repeat the command to resume an interrupted download"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_options(actions.add_parser("get", help=_GET, description=_GET), DataGetRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.get_data.get import get_data

    get_data(**arguments_of(args, DataGetRequest, console))
