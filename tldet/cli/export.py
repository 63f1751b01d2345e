"""``tldet export``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.export.request import ExportRequest

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "export a detector to ONNX, OpenVINO, torch.export or TensorRT, and verify the file"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_options(parser, ExportRequest)


def run(args: Namespace, console: Console) -> None:
    """Run the command.

    Raises:
        SystemExit: the file failed verification; exit code 1.
    """
    from tldet.workflows.export.export import export

    result = export(**arguments_of(args, ExportRequest, console))
    if not result.passed:
        console.print(f"export failed verification: {result.reason}")
        raise SystemExit(1)
