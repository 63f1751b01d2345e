"""A generated detection dataset: real handwritten digits on photographs, ten classes, with masks.

The digits are scikit-learn's (1,797 of 8 x 8 pixels, written by 43 people), resized, rotated by up to 20 degrees and
colored. The photographs come with scikit-image. Training, validation and test images show different digits on different
photographs. The same seed gives the same files.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tldet.data.digit_scenes import deformed, draw_crop, draw_scene, load_photos, load_stamps, paste, random_background
from tldet.data.generated import finish_folder, prepare_folder, write_jpeg, write_scenes
from tldet.errors import DataError
from tldet.structures.image import ImageArray


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
    _require_packages(out)
    if prepare_folder(out, settings, [split for split, _ in splits]):
        return out
    for number, (split, count) in enumerate(splits):
        random, stamps, photos = np.random.default_rng([seed, number]), load_stamps(split), load_photos(split)
        scenes = (draw_scene(stamps, photos, random, size) for _ in range(count))
        write_scenes(out / split, scenes, [str(digit) for digit in range(10)])
    finish_folder(out, settings)
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
    _require_packages(out)
    if prepare_folder(out, settings, ["train", "val"]):
        return out
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        random = np.random.default_rng([seed, number, 3])
        stamps, photos = load_stamps(f"crops/{split}"), load_photos(f"crops/{split}")
        for one in range(count):
            stamp = deformed(stamps[int(random.integers(len(stamps)))], random)
            folder = out / split / str(stamp.label)
            folder.mkdir(parents=True, exist_ok=True)
            write_jpeg(folder / f"{one:05d}.jpg", draw_crop(stamp, photos, random, side))
    finish_folder(out, settings)
    return out


def _require_packages(out: Path) -> None:
    """Check that the packages with the digits and the photographs are installed.

    Raises:
        DataError: a package is missing.
    """
    missing = [name for name in ("sklearn", "skimage") if importlib.util.find_spec(name) is None]
    if missing:
        raise DataError(f"{out}: generating it needs {' and '.join(missing)}: pip install 'tldet[demo]'")


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
