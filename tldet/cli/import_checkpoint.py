"""``tldet import``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "convert an MMDetection or torchvision checkpoint to a tldet checkpoint"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    parser.add_argument(
        "checkpoint",
        metavar="CKPT",
        help="checkpoint of an MMDetection 2.x or 3.x or torchvision detector (.pth, .ckpt or .safetensors)",
    )
    parser.add_argument("--out", required=True, metavar="F", help="output file, a tldet checkpoint")
    parser.add_argument(
        "--model", metavar="NAME", help="name of the model, for example retinanet (default: recognized by the keys)"
    )
    parser.add_argument(
        "--classes",
        nargs="+",
        default=(),
        metavar="NAME",
        help="class names in label order, or a file with one name per line or COCO JSON (default: from the checkpoint)",
    )


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.import_checkpoint import import_checkpoint

    import_checkpoint(args.checkpoint, out=args.out, model=args.model, classes=args.classes, console=console)
