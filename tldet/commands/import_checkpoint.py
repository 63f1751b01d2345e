"""``tldet import``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "turn an MMDetection or torchvision checkpoint into one of tldet"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument("checkpoint", metavar="CKPT", help="an MMDetection 2.x or 3.x or a torchvision .pth file")
    parser.add_argument("--out", required=True, metavar="F", help="where the tldet checkpoint goes")
    parser.add_argument(
        "--model", metavar="NAME", help="which model it is, for example retinanet (default: told by the keys)"
    )


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.import_checkpoint import import_checkpoint

    import_checkpoint(args.checkpoint, out=args.out, model=args.model, console=console)
