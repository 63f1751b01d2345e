"""A generated detection dataset: real handwritten digits on photographs, ten classes, with masks.

The digits are scikit-learn's (1,797 of 8 x 8 pixels, written by 43 people), resized, rotated by up to 20 degrees and
colored. The photographs come with scikit-image. Training, validation and test images show different digits on different
photographs. The same seed gives the same files.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.data.digit_scenes import deformed, draw_crop, draw_scene, load_photos, load_stamps, paste, random_background
from tldet.errors import DataError
from tldet.structures import rle
from tldet.structures.image import ImageArray
from tldet.system.output import write_bytes, write_json

SETTINGS_NAME = "generated.json"  # in a generated folder: its settings


def generate(
    out: str | Path,
    *,
    train: int = 400,
    valid: int = 60,
    test: int = 100,
    seed: int = 0,
    size: tuple[int, int] = (240, 320),
) -> Path:
    """Write the dataset: ``train``, ``valid`` and ``test`` folders with a ``_annotations.coco.json`` in each.

    Args:
        out: output directory; a dataset that was generated there with the same arguments is kept.
        train: number of training images.
        valid: number of validation images.
        test: number of test images.
        seed: random seed.
        size: (height, width) of the images.

    Returns:
        ``out``.
    """
    out = Path(out)
    settings = {"train": train, "valid": valid, "test": test, "seed": seed, "size": list(size), "version": 1}
    splits = (("train", train), ("valid", valid), ("test", test))
    if _prepare(out, settings, [split for split, _ in splits]):
        return out
    for number, (split, count) in enumerate(splits):
        _write_split(out / split, split, count, np.random.default_rng([seed, number]), size)
    write_json(out / SETTINGS_NAME, settings)
    return out


def generate_crops(out: str | Path, *, train: int = 6000, val: int = 500, seed: int = 0, side: int = 64) -> Path:
    """Write a classification dataset of single digits, ``train/DIGIT/*.jpg`` and ``val/DIGIT/*.jpg``.

    It contains only digits and photographs of the training split of :func:`generate`.

    Args:
        out: output directory; a dataset that was generated there with the same arguments is kept.
        train: number of training images.
        val: number of validation images.
        seed: random seed.
        side: height and width of the images.

    Returns:
        ``out``.
    """
    out = Path(out)
    settings = {"train": train, "val": val, "seed": seed, "side": side, "version": 1}
    if _prepare(out, settings, ["train", "val"]):
        return out
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        random = np.random.default_rng([seed, number, 3])
        stamps, photos = load_stamps(f"crops/{split}"), load_photos(f"crops/{split}")
        for one in range(count):
            stamp = deformed(stamps[int(random.integers(len(stamps)))], random)
            folder = out / split / str(stamp.label)
            folder.mkdir(parents=True, exist_ok=True)
            _write_image(folder / f"{one:05d}.jpg", draw_crop(stamp, photos, random, side))
    write_json(out / SETTINGS_NAME, settings)
    return out


def _prepare(out: Path, settings: dict[str, Any], splits: Sequence[str]) -> bool:
    """Return True if ``out`` holds a dataset with these settings; otherwise create empty folders of its splits.

    Raises:
        DataError: such a folder exists but was not generated here, or a package is missing.
    """
    missing = [name for name in ("sklearn", "skimage") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(f"{out}: generating it needs {' and '.join(missing)}: pip install 'tldet[demo]'")
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


def frames(count: int = 60, *, seed: int = 0, size: tuple[int, int] = (240, 320)) -> Iterator[ImageArray]:
    """Yield the frames of a short video: test digits that move over a test photograph."""
    random = np.random.default_rng([seed, 9])
    stamps = load_stamps("test")
    photo = random_background(load_photos("test"), random, size)
    video = []
    for _ in range(5):
        stamp = deformed(stamps[int(random.integers(len(stamps)))], random)
        limit = np.array([size[1] - stamp.cover.shape[1], size[0] - stamp.cover.shape[0]])
        video.append((stamp, random.uniform(0, limit), random.uniform(0, limit)))
    colors = [random.integers(0, 256, 3) for _ in video]
    for step in range(count):
        image = photo.copy()
        for (stamp, start, end), color in zip(video, colors, strict=True):
            x, y = (start + (end - start) * step / max(count - 1, 1)).round().astype(int)
            paste(image, stamp.cover, x, y, color)
        yield image


def _write_split(folder: Path, split: str, count: int, random: np.random.Generator, size: tuple[int, int]) -> None:
    stamps, photos = load_stamps(split), load_photos(split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        name = f"{number:05d}.jpg"
        image, objects = draw_scene(stamps, photos, random, size)
        _write_image(folder / name, image)
        images.append({"id": number, "file_name": name, "width": size[1], "height": size[0]})
        for label, mask in objects:
            record = _record(mask, label)
            annotations.append({"id": len(annotations) + 1, "image_id": number, **record})
    categories = [{"id": digit + 1, "name": str(digit)} for digit in range(10)]
    whole = {"images": images, "annotations": annotations, "categories": categories}
    write_json(folder / "_annotations.coco.json", whole)


def _write_image(path: Path, image: ImageArray) -> None:
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90])
    write_bytes(path, encoded.tobytes(), sync=False)


def _record(mask: NDArray[np.uint8], label: int) -> dict[str, Any]:
    """Create a COCO annotation with the tight box of a mask (H, W)."""
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    area = int(mask.sum())
    return {"category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0, "segmentation": rle.encode(mask)}
