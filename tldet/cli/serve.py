"""``tldet serve``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.serve.request import ServeRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "serve a detector over HTTP, with a web page"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, ServeRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.serve.serve import serve

    serve(**arguments_of(args, ServeRequest, console))
