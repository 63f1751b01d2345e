"""The command ``tldet-runtime``: detect objects on images with an exported detector."""

from __future__ import annotations

import glob
import io
import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import SCORE, __version__
from .errors import DataError, TldetError
from .files import check_writable, is_file, write_file

if TYPE_CHECKING:
    from .detections import NumpyDetections

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"})
SUMMARY = "detect objects on images with a detector exported by tldet, without torch"


def run_command(argv: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code: 0, or 2 for bad input."""
    args = command_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # escape characters that the terminal's encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _Run(args).all(named_images(args.images))
    except KeyboardInterrupt:
        return 130
    except TldetError as error:
        sys.stderr.write(f"tldet-runtime: error: {error}\n")
        return 2


def command_parser() -> ArgumentParser:
    """Return the parser of the arguments."""
    parser = ArgumentParser(prog="tldet-runtime", description=SUMMARY, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tldet-runtime {__version__}")
    parser.add_argument("file", metavar="FILE", help="an .onnx or .xml (OpenVINO) file of tldet export")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="images, folders or globs")
    parser.add_argument("--json", metavar="FILE", help="output file, COCO results JSON; - is standard output")
    parser.add_argument("--draw", metavar="DIR", help="output directory for images with drawn detections")
    text = f"score threshold (default: those stored in the file, else {SCORE})"
    parser.add_argument("--score", type=_probability, metavar="T", help=text)
    text = "largest number of images per batch (default: 4)"
    parser.add_argument("--batch-size", type=_count, default=4, metavar="N", help=text)
    text = "cpu, cuda, cuda:1 for ONNX; cpu, gpu, npu for OpenVINO (default: auto)"
    parser.add_argument("--device", default="auto", metavar="D", help=text)
    text = "execution providers of ONNX Runtime in the order of preference, instead of --device"
    parser.add_argument("--providers", nargs="+", metavar="NAME", help=text)
    parser.add_argument("--threads", type=_count, metavar="N", help="threads of the runtime (default: its own choice)")
    text = "precision in which OpenVINO computes (default: fp32)"
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"], help=text)
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"must be an integer of at least 1, not {text}")
    return int(text)


def _probability(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"must be from 0 to 1, not {text}")
    return value


def named_images(given: Sequence[str]) -> list[str]:
    """Return the images of paths, folders (with their subfolders, by extension) and globs, each once and in order.

    Raises:
        DataError: an argument matches nothing.
    """
    found: dict[str, None] = {}
    for one in given:
        if os.path.isdir(one):  # noqa: PTH112  (Path.is_dir raises OSError if the name is too long)
            inside = sorted(path for path in Path(one).rglob("*") if path.suffix.lower() in EXTENSIONS)
            matched = [path.as_posix() for path in inside if is_file(path) and not path.name.startswith(".")]
        elif is_file(one):
            matched = [Path(one).as_posix()]
        else:
            matched = [Path(path).as_posix() for path in sorted(glob.glob(one, recursive=True)) if is_file(path)]  # noqa: PTH207
        if not matched:
            raise DataError(f"{one}: no such image, or a folder without images")
        found.update(dict.fromkeys(matched))
    return list(found)


class _Run:
    """One call of the command."""

    def __init__(self, args: Namespace) -> None:
        from .detector import NumpyDetector

        if args.json and args.json != "-":
            check_writable(Path(args.json))
        options = {"threads": args.threads, "providers": args.providers, "precision": args.precision}
        self.args, self.detector = args, NumpyDetector(args.file, args.device, **options)
        self.records: list[dict[str, Any]] = []
        self.images = self.detections = self.failed = 0

    def all(self, images: Sequence[str]) -> int:
        """Detect on all images and write the outputs; return the exit code.

        Raises:
            DataError: no image can be read, or an output cannot be written.
        """
        for name, found in self.detector.stream(images, self.args.score, self.args.batch_size):
            if isinstance(found, DataError):
                self.failed += 1
                sys.stderr.write(f"{found}\n")
            else:
                self._take(name, found)
        if not self.images:
            raise DataError(f"nothing predicted: none of {self.failed} images could be read")
        text = json.dumps(self.records, ensure_ascii=False) + "\n"
        if self.args.json == "-":
            sys.stdout.write(text)
        elif self.args.json:
            write_file(Path(self.args.json), text.encode(errors="backslashreplace"))
        failed = f", {self.failed} could not be read" if self.failed else ""
        sys.stderr.write(f"{self.images} images, {self.detections} detections{failed}\n")
        return 0

    def _take(self, name: str, found: NumpyDetections) -> None:
        """Print, draw and keep the detections of an image; image ids count from 1."""
        self.images += 1
        self.detections += len(found)
        rows = zip(found.to_coco(self.images), found.names, strict=True)
        self.records += [{**record, "file_name": name, "category_name": category} for record, category in rows]
        if self.args.json != "-":
            objects = [f"{category} {score:.2f}" for category, score in zip(found.names, found.scores, strict=True)]
            sys.stdout.write(f"{name}: {', '.join(objects) or 'no objects'}\n")
        if self.args.draw:
            self._draw(name, found)

    def _draw(self, name: str, found: NumpyDetections) -> None:
        import cv2

        path = Path(name)
        parts = ["__" if part == ".." else part for part in path.relative_to(path.anchor).parts]
        place = Path(self.args.draw, *parts)
        suffix = path.suffix.lower()
        if suffix not in (".jpg", ".jpeg", ".png"):
            place, suffix = place.with_name(f"{place.name}.png"), ".png"
        drawn = cv2.imencode(suffix, cv2.cvtColor(found.draw(name), cv2.COLOR_RGB2BGR))[1]
        write_file(place, drawn.tobytes())
