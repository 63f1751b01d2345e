"""The command ``tldet-runtime``: detect objects on images with an exported detector."""

from __future__ import annotations

import contextlib
import glob
import io
import json
import os
import signal
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import SCORE, __version__
from .errors import DataError, OutputError, TldetError, counted
from .files import check_writable, is_file, write_file
from .streams import discard_output, error_stream, output_stream

if TYPE_CHECKING:
    from .detections import NumpyDetections

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"})
DRAWN = (".jpg", ".jpeg", ".png")  # formats of drawn images
SUMMARY = "detect objects on images with a detector exported by tldet, without torch"


def run_command(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0; 1 if the reader of standard output has exited; 2 for an error; 130 after Ctrl-C or SIGTERM,
        when the results of the images so far are written.
    """
    args = command_parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # escape characters that the encoding lacks
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with _terminated_like_ctrl_c():
            code = _Run(args).process(named_images(args.images))
        output_stream().flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of standard output has exited
        discard_output(sys.stdout)
        return 1
    except (TldetError, MemoryError) as error:
        message = "out of memory; reduce --batch-size" if isinstance(error, MemoryError) else error
        error_stream().write(f"tldet-runtime: error: {message}\n")
        return 2
    return code


@contextlib.contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM too, once: a second signal does not interrupt the writing of the results."""

    def stop(*_: object) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    numbers = [signal.SIGINT, signal.SIGTERM] if threading.current_thread() is threading.main_thread() else []
    before = [signal.signal(number, stop) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def command_parser() -> ArgumentParser:
    """Return the parser of the arguments."""
    parser = ArgumentParser(prog="tldet-runtime", description=SUMMARY, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"tldet-runtime {__version__}")
    parser.add_argument("file", metavar="FILE", help="exported detector, .onnx or .xml (OpenVINO)")
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files, folders (searched recursively) or globs"
    )
    parser.add_argument("--json", metavar="FILE", help="output file, COCO results JSON (-: standard output)")
    parser.add_argument("--draw", metavar="DIR", help="output directory for images with drawn detections")
    parser.add_argument("--overwrite", action="store_true", help="replace existing output files (default: an error)")
    text = f"score threshold (default: the thresholds stored in the file, else {SCORE})"
    parser.add_argument("--score", type=_probability, metavar="T", help=text)
    text = "maximum number of images per batch (default: 4)"
    parser.add_argument("--batch-size", type=_count, default=4, metavar="N", help=text)
    text = "ONNX: cpu, cuda or cuda:N; OpenVINO: cpu, gpu or npu (default: auto)"
    parser.add_argument("--device", default="auto", metavar="D", help=text)
    text = "ONNX Runtime execution providers in order of preference, instead of --device"
    parser.add_argument("--providers", nargs="+", metavar="NAME", help=text)
    text = "number of CPU threads (default: chosen by the runtime)"
    parser.add_argument("--threads", type=_count, metavar="N", help=text)
    text = "inference precision of OpenVINO (default: fp32)"
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
    """List the image files of paths, folders (searched recursively, by extension) and globs, without duplicates.

    Raises:
        DataError: an argument matches nothing.
    """
    found: dict[str, None] = {}
    for one in given:
        if os.path.isdir(one):  # noqa: PTH112  (Path.is_dir raises OSError if the name is too long)
            inside = [path.relative_to(one) for path in sorted(Path(one).rglob("*"))]
            shown = [path for path in inside if not any(part.startswith(".") for part in path.parts)]
            paths = [Path(one, path) for path in shown if path.suffix.lower() in _IMAGE_SUFFIXES]
            matched = [path.as_posix() for path in paths if is_file(path)]
        elif is_file(one):
            matched = [Path(one).as_posix()]
        else:
            matched = [Path(path).as_posix() for path in sorted(glob.glob(one, recursive=True)) if is_file(path)]  # noqa: PTH207
        if not matched:
            raise DataError(f"{one}: no such file, or a folder without images")
        found.update(dict.fromkeys(matched))
    return list(found)


class _Run:
    """One run of the command."""

    def __init__(self, args: Namespace) -> None:
        from .detector import NumpyDetector

        options = {"threads": args.threads, "providers": args.providers, "precision": args.precision}
        self.args, self.detector = args, NumpyDetector(args.file, args.device, **options)
        self.records: list[dict[str, Any]] = []
        self.images = self.detections = self.failed = 0
        self.output, self.errors = output_stream(), error_stream()
        self.output_error: Exception | None = None  # of standard output; raised after the output files are written

    def process(self, images: Sequence[str]) -> int:
        """Detect on all images and write the outputs; return the exit code.

        Raises:
            DataError: no image can be read, an output cannot be written, or an output would overwrite an input.
        """
        self._check_outputs(images)
        try:
            for name, found in self.detector.stream(images, self.args.score, self.args.batch_size):
                self._take_or_report(name, found)
        except KeyboardInterrupt:
            self._stopped(images)
            raise
        if not self.images:
            raise DataError(f"nothing predicted: {counted(self.failed, 'image')} could not be read")
        self._write()
        if self.output_error:
            raise self.output_error
        return 0

    def _take_or_report(self, name: str, found: NumpyDetections | DataError) -> None:
        if isinstance(found, DataError):
            self.failed += 1
            self.errors.write(f"{found}\n")
        else:
            self._take(name, found)

    def _stopped(self, images: Sequence[str]) -> None:
        """Write the results of the images so far, and state how to continue."""
        if self.images:
            self._write()
        done = self.images + self.failed
        if done < len(images):
            rest = f"stopped before {images[done]}; run the command again with the remaining {len(images) - done} of "
            self.errors.write(f"{rest}{counted(len(images), 'image')} and another --json FILE\n")

    def _write(self) -> None:
        """Write the JSON and the number of images and detections."""
        text = json.dumps(self.records, ensure_ascii=False) + "\n"
        if self.args.json == "-":
            self.output.write(text)
        elif self.args.json:
            write_file(Path(self.args.json), text.encode(errors="backslashreplace"))
        failed = f", {self.failed} could not be read" if self.failed else ""
        counts = f"{counted(self.images, 'image')}, {counted(self.detections, 'detection')}"
        self.errors.write(f"{counts}{failed}\n")

    def _take(self, name: str, found: NumpyDetections) -> None:
        """Print, record and draw the detections of an image; image ids start at 1."""
        self.images += 1
        self.detections += len(found)
        rows = zip(found.to_coco(self.images), found.names, strict=True)
        self.records += [{**record, "file_name": name, "category_name": category} for record, category in rows]
        if self.args.json != "-":
            objects = [f"{category} {score:.2f}" for category, score in zip(found.names, found.scores, strict=True)]
            self._print(f"{name}: {', '.join(objects) or 'no objects'}\n")
        if self.args.draw:
            self._draw(name, found)

    def _print(self, line: str) -> None:
        """Print a line; an error is raised later if there are output files to complete."""
        try:
            self.output.write(line)
        except (OutputError, BrokenPipeError) as error:
            if not (self.args.json or self.args.draw):
                raise
            discard_output(sys.stdout)
            self.output_error = error

    def _check_outputs(self, images: Sequence[str]) -> None:
        """Check that no output overwrites an input or, without --overwrite, a file; and that JSON can be written."""
        outputs = [self._drawn_path(name) for name in images] if self.args.draw else []
        if self.args.json and self.args.json != "-":
            outputs.append(Path(self.args.json))
        inputs = {os.path.realpath(name) for name in (self.args.file, *images)}
        for path in outputs:
            if os.path.realpath(path) in inputs:
                raise OutputError(f"{path}: is an input and would be overwritten; choose another output path")
            if not self.args.overwrite and is_file(path):
                raise OutputError(f"{path}: already exists; choose another path, or replace it with --overwrite")
        if self.args.json and self.args.json != "-":
            check_writable(Path(self.args.json))

    def _drawn_path(self, name: str) -> Path:
        """Return the path of a drawn image: that of the input, with .png appended if the format cannot be written."""
        path = Path(name)
        parts = ["__" if part == ".." else part for part in path.relative_to(path.anchor).parts]
        drawn = Path(self.args.draw, *parts)
        return drawn if path.suffix.lower() in DRAWN else drawn.with_name(f"{drawn.name}.png")

    def _draw(self, name: str, found: NumpyDetections) -> None:
        import cv2

        path = self._drawn_path(name)
        content = cv2.imencode(path.suffix.lower(), cv2.cvtColor(found.draw(name), cv2.COLOR_RGB2BGR))[1]
        write_file(path, content.tobytes())
