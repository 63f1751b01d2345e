"""``tldet study``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_options, arguments_of
from tldet.workflows.study.request import (
    AugmentStudyRequest,
    BackboneStudyRequest,
    DataStudyRequest,
    TransferStudyRequest,
    VariantStudyRequest,
)

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "compare initial weights, backbones, settings or dataset sizes over several seeds"
HINTS = {"resume": "not needed, the same command resumes the study in --out"}
_KINDS = {
    "transfer": (
        TransferStudyRequest,
        "compare training from scratch, with a frozen backbone, full fine-tuning, ...",
    ),
    "backbones": (BackboneStudyRequest, "compare backbones in one recipe"),
    "data": (DataStudyRequest, "evaluate AP as a function of the number of training images, and predict it for more"),
    "variants": (VariantStudyRequest, "compare variants with arbitrary settings: NAME=KEY=VALUE[,KEY=VALUE...]"),
    "augment": (AugmentStudyRequest, "compare augmentation presets"),
}


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for name, (request, text) in _KINDS.items():
        add_options(kinds.add_parser(name, help=text, description=text), request)


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    from tldet.workflows.study.api import study

    study(args.kind, **arguments_of(args, _KINDS[args.kind][0], console))
