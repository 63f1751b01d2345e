"""Output files of ``tldet predict``: COCO JSON, CSV, YOLO labels, crops and drawings."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import cv2
import numpy as np
import torch

from tldet.errors import DataError
from tldet.inference.output_names import Names
from tldet.inference.sources import InputSource
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray
from tldet.system.inputs import real_path
from tldet.system.output import make_folder, write_bytes, write_text
from tldet.system.output_checks import check_output, refuse_existing, refuse_kept, refuse_same

FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')  # in file names of some system
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # file names with a meaning on Windows
_LONGEST = 50  # characters of a folder name; up to 4 bytes each, of 255
YOLO_CLASSES = "classes.txt"  # in the folder of YOLO labels
_LONGEST_ENDING = ".endings"  # placeholder for the longest ending, such as "_000.jpeg", for which names are shortened
NAME_BYTES = 240  # limit for file names; file systems allow 255, and a number may be appended


@dataclass(frozen=True)
class OutputPaths:
    """Output files and folders of a run; None writes no such output.

    Attributes:
        out: folder of images (under their own names) and videos with drawn detections.
        json: COCO results: one record per detection.
        coco: COCO dataset: images, annotations (with scores) and categories.
        csv: table with one row per detection.
        parquet: the same as a Parquet file.
        jsonl: JSON Lines file: one line per image or frame, written during the run.
        yolo: folder of YOLO labels: ``classes.txt`` and one text file per image or frame in ``labels``.
        crops: folder of crops of the detected objects, with one subfolder per class.
    """

    out: Path | None = None
    json: Path | None = None
    coco: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None
    jsonl: Path | None = None
    yolo: Path | None = None
    crops: Path | None = None

    @classmethod
    def of(cls, request: object) -> OutputPaths:
        """Return the user-specified outputs of a request."""
        values = {field.name: getattr(request, field.name, None) for field in fields(cls)}
        return cls(**{name: None if value is None else Path(value) for name, value in values.items()})

    def given(self) -> dict[str, Path]:
        """Return the outputs that are written, by field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in values.items() if path is not None}

    def check(
        self, sources: Sequence[InputSource], read: Sequence[Path], *, overwrite: bool, shared: bool = False
    ) -> None:
        """Check before the run that no output replaces an input or, without ``overwrite``, an earlier output.

        Args:
            sources: the inputs.
            read: further files that the run reads.
            overwrite: replace existing outputs.
            shared: other shards write into the same folders.

        Raises:
            TldetError: an output would replace a file, or two outputs are the same.
        """
        files = [self.out / source.name for source in sources] if self.out else []
        files += self.files()
        kept = {real_path(path) for path in (*(source.path for source in sources), *read)}
        for path in files:
            refuse_kept(path, kept)
        folders = [path for path in (self.yolo, self.crops) if path]
        for folder in folders:
            if any(path.is_relative_to(real_path(folder)) for path in kept):
                raise DataError(f"{folder}: contains an input, which could be overwritten; choose another folder")
        within = [self.yolo / YOLO_CLASSES] if self.yolo else []
        refuse_same([*files, *folders, *([self.out] if self.out else []), *within])
        if not overwrite:
            refuse_existing(files, [] if shared else folders)

    def files(self) -> list[Path]:
        """Return the outputs that are files."""
        return [path for path in (self.json, self.coco, self.csv, self.parquet, self.jsonl) if path]

    def make_folders(self) -> None:
        """Create the folders, so that an output that cannot be written ends the run before it starts."""
        for path in self.given().values():
            if path in self.files():
                check_output(path)
            else:
                make_folder(path)


class YoloWriter:
    """Writer of YOLO labels: class number, box center, width and height as fractions of the image size.

    Args:
        folder: for ``classes.txt`` and the folder ``labels``.
        class_names: name of each label.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        self._labels = folder / "labels"
        write_text(folder / YOLO_CLASSES, "".join(f"{' '.join(name.split())}\n" for name in class_names))

    def write(self, name: Path, detections: Detections, size: tuple[int, int]) -> None:
        """Write the label file of one image; the file is empty without detections.

        Args:
            name: unique name of the image, without extension.
            detections: the detections.
            size: (height, width) of the image.
        """
        height, width = size
        lines = []
        limits = torch.tensor([width, height, width, height], dtype=torch.float64)
        boxes = detections.boxes.double().clamp(min=0).minimum(limits).tolist()
        for label, (x0, y0, x1, y1) in zip(detections.labels.tolist(), boxes, strict=True):
            values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
            lines.append(" ".join([str(label), *(f"{value:.6f}" for value in values)]) + "\n")
        write_text(self._labels / _with_ending(name, ".txt"), "".join(lines))


class CropWriter:
    """Writer of crops of the detected objects, in one folder per class.

    Args:
        folder: the folder.
        class_names: name of each label; the folders have these names as far as file systems allow.
    """

    def __init__(self, folder: Path, class_names: Sequence[str]) -> None:
        claimed = Names()
        self._folders = [folder / claimed.claim(Path(folder_name(name))) for name in class_names]

    def write(self, name: Path, detections: Detections, image: ImageArray, extension: str) -> None:
        """Write the crops of one image, numbered by score; boxes are extended to whole pixels.

        Args:
            name: unique name of the image, without extension.
            detections: the detections.
            image: (H, W, 3) uint8 RGB.
            extension: format of the crops.
        """
        for number, (label, corners) in enumerate(
            zip(detections.labels.tolist(), _corners(detections, image), strict=True)
        ):
            x0, y0, x1, y1 = corners
            file = self._folders[label] / _with_ending(name, f"_{number:03d}{extension}")
            write_image(file, image[y0:y1, x0:x1])


class Stems:
    """Unique names, without extension, for the labels and crops of images and frames.

    The names of images depend on the inputs only, not on the order or the process in which they are predicted.

    Args:
        images: the names of all images, see :class:`~tldet.inference.sources.InputSource`.
    """

    def __init__(self, images: Sequence[Path]) -> None:
        self._names = Names()
        self._stems = {name: self._claim(name.with_suffix("")) for name in images}

    def of(self, name: Path) -> Path:
        """Return the name of an image."""
        return self._stems[name]

    def of_frame(self, name: Path, number: int) -> Path:
        """Return the name of a frame of a video."""
        return self._claim(name.with_name(f"{name.stem}_{number:06d}"))

    def _claim(self, name: Path) -> Path:
        claimed = self._names.claim(_with_ending(name, _LONGEST_ENDING))
        return claimed.with_name(claimed.name.removesuffix(_LONGEST_ENDING))


def _corners(detections: Detections, image: ImageArray) -> Iterator[tuple[int, int, int, int]]:
    """Yield the boxes in whole pixels inside the image, at least one pixel large."""
    height, width = image.shape[:2]
    for x0, y0, x1, y1 in detections.boxes.double().tolist():
        left, top = min(max(int(np.floor(x0)), 0), width - 1), min(max(int(np.floor(y0)), 0), height - 1)
        right, bottom = min(max(int(np.ceil(x1)), left + 1), width), min(max(int(np.ceil(y1)), top + 1), height)
        yield left, top, right, bottom


def _with_ending(name: Path, ending: str) -> Path:
    """Append to a file name, which is shortened if the result would be too long for a file system."""
    encoded, room = os.fsencode(name.name), NAME_BYTES - len(os.fsencode(ending))
    kept = name.name if len(encoded) <= room else encoded[:room].decode(errors="ignore")
    return name.with_name(kept + ending)


def folder_name(name: str) -> str:
    """Return a class name as a folder name that is valid on all systems."""
    valid = FORBIDDEN.sub("_", name)[:_LONGEST].strip(" ").rstrip(". ")
    if not valid or set(valid) <= {"."}:
        return "_"
    return f"_{valid}" if RESERVED.fullmatch(valid) else valid


def write_image(path: Path, image: ImageArray) -> None:
    """Write a (H, W, 3) uint8 RGB image in the format of its extension.

    Raises:
        DataError: the file cannot be written.
    """
    try:
        done, encoded = cv2.imencode(path.suffix.lower(), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error:
        done = False
    if not done:
        height, width = image.shape[:2]
        raise DataError(f"{path}: {width} x {height} pixels cannot be written in this format") from None
    write_bytes(path, encoded.tobytes(), sync=False)
