"""Drawing of the generated dataset: handwritten digits on photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.data.images import read_image
from tldet.structures.image import ImageArray

PHOTOS = {
    "train": ("astronaut.png", "camera.png", "chelsea.png", "coins.png", "motorcycle_left.png", "brick.png", "ihc.png"),
    "valid": ("grass.png", "moon.png"),
    "test": ("coffee.png", "rocket.jpg", "gravel.png"),
    # for pretraining: the training photographs, split again
    "crops/train": ("astronaut.png", "camera.png", "coins.png", "motorcycle_left.png", "brick.png", "ihc.png"),
    "crops/val": ("chelsea.png",),
}
SPLIT_SHARES = {  # fractions of the digit samples
    "train": (0.0, 0.7),
    "valid": (0.7, 0.8),
    "test": (0.8, 1.0),
    "crops/train": (0.0, 0.6),
    "crops/val": (0.6, 0.7),
}
SCENE_DIGITS = (2, 7)  # of a scene
SIDES = (28, 84)  # pixels
TURN = 20.0  # degrees
CONTRAST = 110.0  # difference of gray value between a digit and its background


@dataclass(frozen=True)
class Stamp:
    """One digit: its class, and the covered fraction of each pixel, (S, S) float32 in 0..1."""

    label: int
    cover: NDArray[np.float32]


def load_stamps(split: str) -> list[Stamp]:
    """Load the digits of a split."""
    from sklearn.datasets import load_digits

    data = load_digits()
    low, high = (round(share * len(data.target)) for share in SPLIT_SHARES[split])
    return [
        Stamp(int(label), (image / 16).astype(np.float32))
        for label, image in zip(data.target[low:high], data.images[low:high], strict=True)
    ]


def load_photos(split: str) -> list[ImageArray]:
    """Load the photographs of a split."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    return [read_image(folder / name) for name in PHOTOS[split]]


def random_background(photos: list[ImageArray], random: np.random.Generator, size: tuple[int, int]) -> ImageArray:
    """Return a random window of a random photograph, resized to ``size`` and flipped with probability 0.5."""
    photo = photos[int(random.integers(len(photos)))]
    height, width = photo.shape[:2]
    scale = random.uniform(0.6, 1.0) * min(height / size[0], width / size[1])
    h, w = int(size[0] * scale), int(size[1] * scale)
    y, x = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
    cut = cv2.resize(photo[y : y + h, x : x + w], (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    image: ImageArray = np.array(cut[:, ::-1] if random.random() < 0.5 else cut, np.uint8)
    return image


def deformed(stamp: Stamp, random: np.random.Generator) -> Stamp:
    """Return a digit at a random size of ``SIDES``, rotated by up to ``TURN`` degrees."""
    side = int(np.exp(random.uniform(*np.log(SIDES))))
    big = cv2.resize(stamp.cover, (side, side), interpolation=cv2.INTER_CUBIC)
    margin = side // 5
    padded = np.pad(big, margin)
    middle = (padded.shape[1] / 2, padded.shape[0] / 2)
    turn = cv2.getRotationMatrix2D(middle, random.uniform(-TURN, TURN), 1.0)
    rotated = cv2.warpAffine(padded, turn, (padded.shape[1], padded.shape[0]), flags=cv2.INTER_LINEAR)
    cover = np.clip(rotated * 1.5 - 0.15, 0, 1)
    rows, columns = np.where(cover.max(1) > 0.05)[0], np.where(cover.max(0) > 0.05)[0]
    return Stamp(stamp.label, cover[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].astype(np.float32))


def paste(image: ImageArray, cover: NDArray[np.float32], x: int, y: int, color: NDArray[Any]) -> None:
    """Blend a digit into an image (H, W, 3); its color differs from the background by ``CONTRAST``."""
    part = image[y : y + cover.shape[0], x : x + cover.shape[1]].astype(np.float32)
    background = float(part.mean())
    tone = np.asarray(color, np.float32)
    target = background + CONTRAST if background < 128 else background - CONTRAST
    tone = np.clip(tone - tone.mean() + target, 0, 255)
    blended = part + (tone - part) * cover[..., None]
    image[y : y + cover.shape[0], x : x + cover.shape[1]] = blended.round().astype(np.uint8)


def draw_scene(
    stamps: list[Stamp], photos: list[ImageArray], random: np.random.Generator, size: tuple[int, int]
) -> tuple[ImageArray, list[tuple[int, NDArray[np.uint8]]]]:
    """Draw 2 to 7 digits on a photograph; return the image, and label and mask (H, W) of each digit."""
    image = random_background(photos, random, size)
    occupied = np.zeros(size, np.uint8)
    objects: list[tuple[int, NDArray[np.uint8]]] = []
    count = int(random.integers(SCENE_DIGITS[0], SCENE_DIGITS[1] + 1))
    for _ in range(8 * count):
        if len(objects) == count:
            break
        stamp = deformed(stamps[int(random.integers(len(stamps)))], random)
        side = stamp.cover.shape
        y, x = int(random.integers(size[0] - side[0] + 1)), int(random.integers(size[1] - side[1] + 1))
        mask = np.zeros(size, np.uint8)
        mask[y : y + side[0], x : x + side[1]] = stamp.cover > 0.35
        if not mask.any() or (occupied & mask).any() or occupied[y : y + side[0], x : x + side[1]].mean() > 0.15:
            continue
        paste(image, stamp.cover, x, y, random.integers(0, 256, 3))
        occupied |= mask
        objects.append((stamp.label, mask))
    return image, objects


def draw_crop(stamp: Stamp, photos: list[ImageArray], random: np.random.Generator, side: int) -> ImageArray:
    """Draw one digit, of at least 0.7 of the image size, on a window of a photograph."""
    scale = side * random.uniform(0.7, 1.0) / max(stamp.cover.shape)
    height, width = (max(1, int(scale * length)) for length in stamp.cover.shape)
    cover = cv2.resize(stamp.cover, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    photo = random_background(photos, random, (240, 320))
    y, x = (int(random.integers(length - side + 1)) for length in photo.shape[:2])
    image: ImageArray = np.array(photo[y : y + side, x : x + side])
    y, x = int(random.integers(side - height + 1)), int(random.integers(side - width + 1))
    paste(image, cover, x, y, random.integers(0, 256, 3))
    return image
