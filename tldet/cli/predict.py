"""``tldet predict``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_device, add_nms, add_precision, file_name, positive_int, unit_interval
from tldet.cli.process import import_without_compiler, return_free_memory
from tldet.inference import SCORE

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "run a detector on images and video"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a tldet checkpoint or an exported detector")
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="images, folders, globs, videos or a camera number")
    parser.add_argument("--out", metavar="D", help="output directory of images and videos with drawn detections")
    parser.add_argument("--json", type=file_name, metavar="F", help="output file, COCO results JSON")
    text = "output file, COCO dataset JSON with the detections as annotations"
    parser.add_argument("--coco", type=file_name, metavar="F", help=text)
    parser.add_argument("--csv", type=file_name, metavar="F", help="output file, one row per detection")
    parser.add_argument("--yolo", metavar="D", help="output directory of YOLO labels (labels/*.txt and classes.txt)")
    parser.add_argument("--crops", metavar="D", help="output directory of cropped objects, one subfolder per class")
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files (default: an error)")
    parser.add_argument("--annotations", metavar="JSON", help="COCO JSON whose image and category ids the results use")
    parser.add_argument(
        "--score", type=unit_interval, default=SCORE, metavar="T", help="score threshold (default: %(default)s)"
    )
    text = "largest number of pixels of an image file (default: about 179 million)"
    parser.add_argument("--max-pixels", type=positive_int, metavar="N", help=text)
    add_nms(parser)
    add_device(parser)
    add_precision(parser, "the faster one")


def run(args: Namespace, console: Console) -> None:
    """Run the command."""
    import_without_compiler()
    from tldet.data.image_size import MAX_PIXELS
    from tldet.inference.run import predict

    predict(
        args.checkpoint,
        args.inputs,
        out=args.out,
        json_path=args.json,
        coco=args.coco,
        csv_path=args.csv,
        yolo=args.yolo,
        crops=args.crops,
        overwrite=args.overwrite,
        annotations=args.annotations,
        score=args.score,
        device=args.device,
        precision=args.precision,
        nms_per_class=args.nms_per_class,
        max_pixels=args.max_pixels or MAX_PIXELS,
        console=console,
        on_load=lambda _: return_free_memory(),
    )
