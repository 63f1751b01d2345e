"""Writing of generated detection datasets as COCO JSON and JPEG; the drawing is up to the caller."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.structures import rle
from tldet.structures.image import ImageArray
from tldet.system.output import write_bytes, write_json

SETTINGS_NAME = "generated.json"  # in a generated folder: its settings
ANNOTATIONS_NAME = "_annotations.coco.json"  # in the folder of a split
Scene = tuple[ImageArray, list[tuple[int, NDArray[np.uint8]]]]  # an image; label and mask (H, W) of each object


def prepare_folder(out: Path, settings: dict[str, Any], splits: Sequence[str]) -> bool:
    """Return True if ``out`` holds a dataset with these settings; otherwise create empty folders of its splits.

    The caller writes the splits, then the settings with :func:`finish_folder`.

    Raises:
        DataError: such a folder exists but was not generated.
    """
    done = out / SETTINGS_NAME
    with suppress(OSError, ValueError):  # missing or damaged
        if json.loads(done.read_text(encoding="utf-8")) == settings:
            return True
    foreign = next((out / split for split in splits if (out / split).exists() and not done.is_file()), None)
    if foreign is not None:
        raise DataError(f"{foreign}: was not generated here and would be lost; remove it or choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(done, {"unfinished": settings})
    for split in splits:
        shutil.rmtree(out / split, ignore_errors=True)
        (out / split).mkdir(parents=True)
    return False


def finish_folder(out: Path, settings: dict[str, Any]) -> None:
    """Record the settings of a dataset whose splits are complete."""
    write_json(out / SETTINGS_NAME, settings)


def write_scenes(folder: Path, scenes: Iterable[Scene], class_names: Sequence[str]) -> None:
    """Write the images of a split and their annotations; category ids are labels + 1."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, (image, objects) in enumerate(scenes, 1):
        name = f"{number:05d}.jpg"
        write_jpeg(folder / name, image)
        images.append({"id": number, "file_name": name, "width": image.shape[1], "height": image.shape[0]})
        for label, mask in objects:
            record = _record(mask, label)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **record})
    categories = [{"id": number, "name": name} for number, name in enumerate(class_names, 1)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / ANNOTATIONS_NAME, whole)


def write_jpeg(path: Path, image: ImageArray) -> None:
    """Write an RGB image as JPEG."""
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    write_bytes(path, encoded.tobytes(), sync=False)


def _record(mask: NDArray[np.uint8], label: int) -> dict[str, Any]:
    """Create a COCO annotation with the tight box of a mask (H, W)."""
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    area = int(mask.sum())
    return {"category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0, "segmentation": rle.encode(mask)}
