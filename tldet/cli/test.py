"""``tldet test``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_bad_image, add_device, add_engine, add_format, add_nms, add_precision, file_name
from tldet.cli.process import import_without_compiler

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "evaluate a checkpoint (COCO box and mask mAP)"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a tldet checkpoint")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="annotation file, or a folder as for finetune, of which the test split is used, else the validation split "
        "(default: test or validation split of the checkpoint's config)",
    )
    parser.add_argument("--images", metavar="DIR", help="image directory of --data (default: searched)")
    add_format(parser)
    parser.add_argument(
        "--json",
        type=file_name,
        metavar="F",
        help="output file of the metrics; for a mask model the mask metrics, with the box metrics under 'bbox'",
    )
    parser.add_argument(
        "--results",
        type=file_name,
        metavar="F",
        help="output file of the detections, COCO results JSON; for a mask model with masks",
    )
    add_bad_image(parser)
    add_nms(parser)
    add_engine(parser)
    add_device(parser)
    add_precision(parser, "bf16 on a GPU, else fp32")


def run(args: Namespace, console: Console) -> None:
    """Evaluate."""
    import_without_compiler()
    from tldet.workflows.test import test

    test(
        args.checkpoint,
        data=args.data,
        images=args.images,
        format=args.format,
        voc_boxes=args.voc_boxes,
        on_bad_image=args.on_bad_image,
        json_path=args.json,
        results_path=args.results,
        engine=args.engine,
        device=args.device,
        precision=args.precision,
        nms_per_class=args.nms_per_class,
        console=console,
    )
