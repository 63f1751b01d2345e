"""``tldet predict``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.cli.process import import_without_compiler, return_free_memory
from tldet.workflows.predict.request import PredictRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "run a detector on images, videos and cameras"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, PredictRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    import_without_compiler()
    from tldet.workflows.predict.predict import predict

    predict(**arguments_of(args, PredictRequest, console), on_load=lambda _: return_free_memory())
