"""``tldet finetune``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.shared import (
    add_bad_image,
    add_class_match,
    add_compile,
    add_data,
    add_length,
    add_on_oom,
    add_options,
    add_seed,
    options_of,
    positive_float,
    share,
)

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "fine-tune on your own data, no config to write"


def arguments(parser: ArgumentParser) -> None:
    """What it takes."""
    add_data(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="where the run goes")
    parser.add_argument("--model", metavar="NAME", help="recipe (default: faster_rcnn_lite0)")
    parser.add_argument("--backbone", metavar="B", help="another backbone, see tldet models")
    add_length(parser)
    add_seed(parser)
    parser.add_argument("--scratch", action="store_true", help="start from random weights instead of pretrained ones")
    start = parser.add_mutually_exclusive_group()
    start.add_argument(
        "--weights",
        metavar="W",
        help="start from a whole detector: 'coco' (the recipe's published COCO weights), or the file of one of tldet, "
        "MMDetection or torchvision, rows of classes carried by name; or from the file of a backbone's weights "
        "(default: the recipe's ImageNet backbone)",
    )
    start.add_argument("--resume", action="store_true", help="go on with the run in --out and its config.py")
    start.add_argument("--init-from", metavar="F", help="start from the weights of this tldet checkpoint")
    transfer = parser.add_argument_group("what of the start stays")
    transfer.add_argument(
        "--freeze",
        nargs="+",
        default=[],
        metavar="WHAT",
        help="what does not learn: 'backbone', 'all-but-head', or globs over names of modules and parameters",
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
    add_on_oom(parser)
    add_options(parser)


def run(args: Namespace, console: Console) -> None:
    """Run it."""
    from tldet.workflows.finetune import finetune
    from tldet.workflows.transfer_options import TransferOptions

    finetune(
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
