"""A generated detection data set: real handwritten digits on photographs, ten classes, with masks.

The digits are scikit-learn's (1,797 of 8 x 8 pixels, written by 43 people), scaled, turned by up to 20 degrees and
colored; the photographs come with scikit-image. Test images show other digits on other photographs than training
ones. The same seed gives the same files.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.structures.image import ImageArray
from tldet.system.output import write_bytes, write_json

PHOTOS = {
    "train": ("astronaut.png", "camera.png", "chelsea.png", "coins.png", "motorcycle_left.png", "brick.png", "ihc.png"),
    "valid": ("grass.png", "moon.png"),
    "test": ("coffee.png", "rocket.jpg", "gravel.png"),
    # To pre-train on: the training side of the above, split once more.
    "crops/train": ("astronaut.png", "camera.png", "coins.png", "motorcycle_left.png", "brick.png", "ihc.png"),
    "crops/val": ("chelsea.png",),
}
SPLIT_SHARES = {  # of the digit samples
    "train": (0.0, 0.7),
    "valid": (0.7, 0.8),
    "test": (0.8, 1.0),
    "crops/train": (0.0, 0.6),
    "crops/val": (0.6, 0.7),
}
MARK = "generated.json"  # in a generated folder: what it was generated from
_DIGITS = (2, 7)
SIDES = (28, 84)  # pixels
TURN = 20.0  # degrees
CONTRAST = 110.0  # least distance of a digit's gray from what is behind it


@dataclass(frozen=True)
class Stamp:
    """One digit: its class and how much of each pixel it covers, (S, S) float32 in 0..1."""

    label: int
    cover: NDArray[np.float32]


def generate(
    out: Path, *, train: int = 400, valid: int = 60, test: int = 100, seed: int = 0, size: tuple[int, int] = (240, 320)
) -> Path:
    """Write the data set, as ``train``, ``valid`` and ``test`` folders with a ``_annotations.coco.json`` in each.

    Args:
        out: the folder; what was generated there with the same numbers is kept.
        train: images to train on.
        valid: images to watch training on.
        test: images to measure on.
        seed: what everything is drawn from.
        size: (height, width) of an image.

    Returns:
        ``out``.
    """
    wish = {"train": train, "valid": valid, "test": test, "seed": seed, "size": list(size), "version": 1}
    splits = (("train", train), ("valid", valid), ("test", test))
    if _is_there(out, wish, [split for split, _ in splits]):
        return out
    for number, (split, count) in enumerate(splits):
        _write_split(out / split, split, count, np.random.default_rng([seed, number]), size)
    write_json(out / MARK, wish)
    return out


def generate_crops(out: Path, *, train: int = 6000, val: int = 500, seed: int = 0, side: int = 64) -> Path:
    """Write a classification data set of single digits, ``train/DIGIT/*.jpg`` and ``val/DIGIT/*.jpg``.

    All digits and photographs are of the training side of :func:`generate`: nothing of its other parts is in them.

    Args:
        out: the folder; what was generated there with the same numbers is kept.
        train: images to train on.
        val: images to measure on.
        seed: what everything is drawn from.
        side: height and width of an image.

    Returns:
        ``out``.
    """
    wish = {"train": train, "val": val, "seed": seed, "side": side, "version": 1}
    if _is_there(out, wish, ["train", "val"]):
        return out
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        random = np.random.default_rng([seed, number, 3])
        stamps, photos = _stamps(f"crops/{split}"), _photos(f"crops/{split}")
        for one in range(count):
            stamp = _turned(stamps[int(random.integers(len(stamps)))], random)
            folder = out / split / str(stamp.label)
            folder.mkdir(parents=True, exist_ok=True)
            _write_image(folder / f"{one:05d}.jpg", _crop(stamp, photos, random, side))
    write_json(out / MARK, wish)
    return out


def _is_there(out: Path, wish: dict[str, Any], splits: Sequence[str]) -> bool:
    """Whether ``out`` holds what is wished for; if not, its ``splits`` are made anew, empty.

    Raises:
        DataError: a folder in their place was not generated here, or a package is missing.
    """
    missing = [name for name in ("sklearn", "skimage") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(f"{out}: generating it needs {' and '.join(missing)}: pip install 'tldet[demo]'")
    done = out / MARK
    with suppress(OSError, ValueError):  # missing or damaged
        if json.loads(done.read_text(encoding="utf-8")) == wish:
            return True
    strange = next((out / split for split in splits if (out / split).exists() and not done.is_file()), None)
    if strange is not None:
        raise DataError(f"{strange}: was not generated here and would be lost; remove it or choose another folder")
    out.mkdir(parents=True, exist_ok=True)
    write_json(done, {"unfinished": wish})
    for split in splits:
        shutil.rmtree(out / split, ignore_errors=True)
        (out / split).mkdir(parents=True)
    return False


def _crop(stamp: Stamp, photos: list[ImageArray], random: np.random.Generator, side: int) -> ImageArray:
    """One digit somewhere on a cut of a photograph, that spans 0.7 of the image or more."""
    scale = side * random.uniform(0.7, 1.0) / max(stamp.cover.shape)
    height, width = (max(1, int(scale * length)) for length in stamp.cover.shape)
    cover = cv2.resize(stamp.cover, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    photo = _background(photos, random, (240, 320))
    y, x = (int(random.integers(length - side + 1)) for length in photo.shape[:2])
    image: ImageArray = np.array(photo[y : y + side, x : x + side])
    y, x = int(random.integers(side - height + 1)), int(random.integers(side - width + 1))
    _paste(image, cover, x, y, random.integers(0, 256, 3))
    return image


def frames(count: int = 60, *, seed: int = 0, size: tuple[int, int] = (240, 320)) -> Iterator[ImageArray]:
    """A short video: test digits drifting over a test photograph."""
    random = np.random.default_rng([seed, 9])
    stamps = _stamps("test")
    photo = _background(_photos("test"), random, size)
    video = []
    for _ in range(5):
        stamp = _turned(stamps[int(random.integers(len(stamps)))], random)
        limit = np.array([size[1] - stamp.cover.shape[1], size[0] - stamp.cover.shape[0]])
        video.append((stamp, random.uniform(0, limit), random.uniform(0, limit)))
    colors = [random.integers(0, 256, 3) for _ in video]
    for step in range(count):
        image = photo.copy()
        for (stamp, start, end), color in zip(video, colors, strict=True):
            x, y = (start + (end - start) * step / max(count - 1, 1)).round().astype(int)
            _paste(image, stamp.cover, x, y, color)
        yield image


def _write_split(folder: Path, split: str, count: int, random: np.random.Generator, size: tuple[int, int]) -> None:
    stamps, photos = _stamps(split), _photos(split)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(1, count + 1):
        name = f"{number:05d}.jpg"
        image, objects = _scene(stamps, photos, random, size)
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


def _stamps(split: str) -> list[Stamp]:
    from sklearn.datasets import load_digits

    data = load_digits()
    low, high = (round(share * len(data.target)) for share in SPLIT_SHARES[split])
    return [
        Stamp(int(label), (image / 16).astype(np.float32))
        for label, image in zip(data.target[low:high], data.images[low:high], strict=True)
    ]


def _photos(split: str) -> list[ImageArray]:
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [read_image(folder / name) for name in PHOTOS[split]]


def _background(photos: list[ImageArray], random: np.random.Generator, size: tuple[int, int]) -> ImageArray:
    photo = photos[int(random.integers(len(photos)))]
    height, width = photo.shape[:2]
    scale = random.uniform(0.6, 1.0) * min(height / size[0], width / size[1])
    h, w = int(size[0] * scale), int(size[1] * scale)
    y, x = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
    cut = cv2.resize(photo[y : y + h, x : x + w], (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    image: ImageArray = np.array(cut[:, ::-1] if random.random() < 0.5 else cut, np.uint8)
    return image


def _scene(
    stamps: list[Stamp], photos: list[ImageArray], random: np.random.Generator, size: tuple[int, int]
) -> tuple[ImageArray, list[tuple[int, NDArray[np.uint8]]]]:
    image = _background(photos, random, size)
    taken = np.zeros(size, np.uint8)
    objects: list[tuple[int, NDArray[np.uint8]]] = []
    wanted = int(random.integers(_DIGITS[0], _DIGITS[1] + 1))
    for _ in range(8 * wanted):
        if len(objects) == wanted:
            break
        stamp = _turned(stamps[int(random.integers(len(stamps)))], random)
        side = stamp.cover.shape
        y, x = int(random.integers(size[0] - side[0] + 1)), int(random.integers(size[1] - side[1] + 1))
        mask = np.zeros(size, np.uint8)
        mask[y : y + side[0], x : x + side[1]] = stamp.cover > 0.35
        if not mask.any() or (taken & mask).any() or taken[y : y + side[0], x : x + side[1]].mean() > 0.15:
            continue
        _paste(image, stamp.cover, x, y, random.integers(0, 256, 3))
        taken |= mask
        objects.append((stamp.label, mask))
    return image, objects


def _turned(stamp: Stamp, random: np.random.Generator) -> Stamp:
    side = int(np.exp(random.uniform(*np.log(SIDES))))
    big = cv2.resize(stamp.cover, (side, side), interpolation=cv2.INTER_CUBIC)
    edge = side // 5
    padded = np.pad(big, edge)
    middle = (padded.shape[1] / 2, padded.shape[0] / 2)
    turn = cv2.getRotationMatrix2D(middle, random.uniform(-TURN, TURN), 1.0)
    turned = cv2.warpAffine(padded, turn, (padded.shape[1], padded.shape[0]), flags=cv2.INTER_LINEAR)
    cover = np.clip(turned * 1.5 - 0.15, 0, 1)
    rows, columns = np.where(cover.max(1) > 0.05)[0], np.where(cover.max(0) > 0.05)[0]
    return Stamp(stamp.label, cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32))


def _paste(image: ImageArray, cover: NDArray[np.float32], x: int, y: int, color: NDArray[Any]) -> None:
    """Blend a digit in; its color is made lighter or darker until it stands out from what is behind."""
    part = image[y : y + cover.shape[0], x : x + cover.shape[1]].astype(np.float32)
    behind = float(part.mean())
    tone = np.asarray(color, np.float32)
    target = behind + CONTRAST if behind < 128 else behind - CONTRAST
    tone = np.clip(tone - tone.mean() + target, 0, 255)
    blended = part + (tone - part) * cover[..., None]
    image[y : y + cover.shape[0], x : x + cover.shape[1]] = blended.round().astype(np.uint8)


def _record(mask: NDArray[np.uint8], label: int) -> dict[str, Any]:
    """A COCO annotation whose box is tight around the mask."""
    from pycocotools import mask as coco_mask

    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    x, y = int(columns[0]), int(rows[0])
    box = [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y]
    encoded = coco_mask.encode(np.asfortranarray(mask))
    segmentation = {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    area = int(mask.sum())
    return {"category_id": label + 1, "bbox": box, "area": area, "iscrowd": 0, "segmentation": segmentation}
