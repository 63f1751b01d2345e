"""``tldet export``."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from tldet.cli.arguments import add_nms, unit_interval

if TYPE_CHECKING:
    from rich.console import Console

SUMMARY = "export a detector to ONNX, OpenVINO or torch.export, and verify the file"


def arguments(parser: ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("checkpoint", metavar="CKPT", help="a tldet checkpoint")
    parser.add_argument("--format", required=True, choices=("onnx", "openvino", "torch"), help="file format")
    parser.add_argument(
        "--precision", default="fp32", choices=("fp32", "fp16"), help="precision of the weights (default: fp32)"
    )
    parser.add_argument(
        "--dynamic",
        metavar="AXES",
        help="axes of any length: batch, size (multiples of 32), or batch,size (default: one image of a fixed size)",
    )
    parser.add_argument("--raw", action="store_true", help="export the network without decoding; not verified")
    parser.add_argument("--out", metavar="DIR", help="output directory (default: that of the checkpoint)")
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="COCO JSON or dataset folder for verification (default: validation split of the checkpoint's config)",
    )
    parser.add_argument(
        "--images", metavar="DIR", help="image directory of --data; without --data, images for verification"
    )
    parser.add_argument("--no-verify", dest="verify", action="store_false", help="do not run the exported file")
    parser.add_argument(
        "--max-drop",
        type=unit_interval,
        metavar="AP",
        help="largest allowed drop of AP (default: 0.001, fp16: 0.003); a larger one ends with exit code 1",
    )
    add_nms(parser)


def run(args: Namespace, console: Console) -> None:
    """Export.

    Raises:
        SystemExit: the file differs from the checkpoint by more than is allowed; exit code 1.
    """
    from tldet.workflows.export import export

    result = export(
        args.checkpoint,
        args.format,
        out=args.out,
        precision=args.precision,
        dynamic=args.dynamic.split(",") if args.dynamic else (),
        raw=args.raw,
        data=args.data,
        images=args.images,
        verify=args.verify,
        max_drop=args.max_drop,
        nms_per_class=args.nms_per_class,
        console=console,
    )
    if not result.passed:
        console.print(f"export failed verification: {result.reason}")
        raise SystemExit(1)
