"""``tldet extend``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.commands.settings import add_settings, options_of
from tldet.commands.shared import add_bad_image, add_class_match, add_length, add_resume, add_seed

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "add classes to a detector that keeps those it has"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", nargs="?", metavar="CKPT", help="a tldet checkpoint of the detector to extend")
    parser.add_argument("--data", metavar="DIR", help="folder with pictures and COCO JSON of the new classes")
    parser.add_argument("--out", required=True, metavar="DIR", help="where the run goes")
    parser.add_argument("--train", metavar="JSON", help="annotations of new classes to train on")
    parser.add_argument("--val", metavar="JSON", help="annotations to measure on, of new classes or of all")
    parser.add_argument("--images", metavar="DIR", help="picture folder of --train and --val")
    parser.add_argument("--replay", metavar="JSON", help="old pictures, labelled for old classes, that are mixed in")
    parser.add_argument("--replay-images", metavar="DIR", help="their folder (default: looked for around --replay)")
    parser.add_argument(
        "--old-val",
        metavar="JSON",
        help="annotations to measure old classes on (default: --val, then what CKPT was measured on)",
    )
    parser.add_argument("--old-val-images", metavar="DIR", help="their folder (default: looked for around --old-val)")
    parser.add_argument(
        "--no-distill",
        action="store_true",
        help="plain fine-tuning, for comparison: no teacher, and what is not labelled is background",
    )
    add_length(parser)
    add_seed(parser)
    add_resume(parser)
    add_class_match(parser)
    add_bad_image(parser)
    add_settings(parser)


def run(args: Namespace, console: Console) -> None:
    """Extend."""
    from tldet.commands.following import show_next
    from tldet.workflows.extend.extend import ExtendData, extend

    report = extend(
        args.checkpoint,
        ExtendData(
            data=args.data,
            train_json=args.train,
            val_json=args.val,
            images=args.images,
            replay=args.replay,
            replay_images=args.replay_images,
            old_val=args.old_val,
            old_val_images=args.old_val_images,
        ),
        out=args.out,
        epochs=args.epochs,
        minutes=args.minutes,
        steps=args.steps,
        seed=args.seed,
        distill=not args.no_distill,
        class_aliases=args.class_aliases,
        fold_names=tuple(args.fold_names),
        resume=args.resume,
        on_bad_image=args.on_bad_image,
        options=options_of(args),
        console=console,
    )
    show_next(report.checkpoint, console)
