"""``tldet finetune``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.settings import add_compile, add_settings, options_of
from tldet.commands.shared import (
    add_bad_image,
    add_class_match,
    add_data,
    add_length,
    add_resume,
    add_seed,
    positive_float,
    share,
)

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "fine-tune on your own data, no config to write"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="output directory")
    parser.add_argument("--model", metavar="NAME", help="recipe (default: faster_rcnn_lite0)")
    parser.add_argument("--backbone", metavar="B", help="another backbone, see tldet models")
    add_length(parser)
    add_seed(parser)
    add_resume(parser)
    parser.add_argument("--scratch", action="store_true", help="random initial weights")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--weights",
        metavar="W",
        help="initial weights: 'coco' (the recipe's published COCO weights), a detector checkpoint (tldet, MMDetection "
        "or torchvision; classifier weights are copied by class name) or a backbone file (default: ImageNet backbone)",
    )
    start.add_argument("--init-from", metavar="F", help="tldet checkpoint with the initial weights")
    transfer = parser.add_argument_group("freezing and learning rates")
    transfer.add_argument(
        "--freeze",
        nargs="+",
        action="extend",
        default=[],
        metavar="WHAT",
        help="freeze 'backbone', 'all-but-head', or modules and parameters matching a glob",
    )
    transfer.add_argument(
        "--gradual",
        nargs="?",
        const=0.5,
        type=share,
        metavar="SHARE",
        help="freeze the backbone first and let it learn from the top down over this share of the run (0.5)",
    )
    transfer.add_argument(
        "--layer-decay", type=share, metavar="F", help="each layer group learns F times as fast as the one above it"
    )
    transfer.add_argument(
        "--l2-sp", type=positive_float, metavar="A", help="pull the backbone to its start, instead of weight decay"
    )
    add_class_match(parser)
    add_bad_image(parser)
    add_compile(parser)
    add_settings(parser)


def run(args: Namespace, console: Console) -> None:
    """Fine-tune."""
    from tldet.commands.following import show_next
    from tldet.workflows.finetune import finetune
    from tldet.workflows.transfer_options import TransferOptions

    outcome = finetune(
        args.data,
        out=args.out,
        model=args.model,
        backbone=args.backbone,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        scratch=args.scratch,
        weights=args.weights,
        train_json=args.train,
        val_json=args.val,
        images=args.images,
        resume=args.resume,
        init_from=args.init_from,
        transfer=TransferOptions(
            freeze=tuple(args.freeze),
            gradual=args.gradual,
            layer_decay=args.layer_decay,
            l2_sp=args.l2_sp,
            class_aliases=args.class_aliases,
            fold_names=tuple(args.fold_names),
        ),
        on_bad_image=args.on_bad_image,
        options=options_of(args),
        console=console,
    )
    show_next(outcome.checkpoint, console)
