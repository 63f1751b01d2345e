"""Generated datasets with demands that digits on photographs do not have; see :mod:`.aerial` and :mod:`.cards`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tldet.data.generated import Scene, finish_folder, prepare_folder, write_scenes
from tldet.structures.image import ImageArray, Size

Floats = NDArray[np.float32]
Mask = NDArray[np.uint8]
Random = np.random.Generator
OPAQUE = 0.35  # covered fraction from which a pixel belongs to an object
SPLITS = ("train", "test")


def write_dataset(
    out: Path,
    scenes: Callable[[int, Random, Size], Iterator[Scene]],
    class_names: Sequence[str],
    *,
    counts: tuple[int, int],
    seed: int,
    size: Size,
) -> Path:
    """Write folders ``train`` and ``test``; a dataset that was generated there with the same arguments is kept.

    Args:
        out: output directory.
        scenes: draws a number of images, the same for the same state of the generator.
        class_names: names by label.
        counts: number of training and of test images.
        seed: random seed.
        size: (height, width) of the images.

    Returns:
        ``out``.
    """
    settings: dict[str, Any] = {"scenes": scenes.__name__, "counts": list(counts), "seed": seed, "size": list(size)}
    settings["version"] = 1
    if not prepare_folder(out, settings, SPLITS):
        for number, (split, count) in enumerate(zip(SPLITS, counts, strict=True)):
            write_scenes(out / split, scenes(count, np.random.default_rng([seed, number]), size), class_names)
        finish_folder(out, settings)
    return out


def noise(random: Random, size: Size, patch: float) -> Floats:
    """Return smooth noise (H, W) in 0..1; ``patch`` is the size of its largest structures in pixels."""
    total = np.zeros(size, np.float32)
    for octave in range(5):
        side = max(2.0, patch / 2**octave)
        grid = random.random((int(size[0] / side) + 2, int(size[1] / side) + 2), np.float32)
        total += cv2.resize(grid, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) / 2**octave
    return np.asarray((total - total.min()) / (total.max() - total.min()), np.float32)


def mixed(first: Any, second: Any, share: Any) -> Floats:
    """Return colors between two colors or images; ``share`` (H, W) in 0..1 is that of the second."""
    start = np.asarray(first, np.float32)
    return np.asarray(start + (np.asarray(second, np.float32) - start) * np.asarray(share)[..., None], np.float32)


def photographed(image: Floats, random: Random) -> ImageArray:
    """Add uneven light, blur and sensor noise."""
    height, width = image.shape[:2]
    light = 0.75 + 0.5 * noise(random, (height, width), max(height, width))
    lit = image * light[..., None] * random.uniform(0.8, 1.15)
    blurred = cv2.GaussianBlur(lit, (0, 0), random.uniform(0.3, 0.8))
    noisy = blurred + random.normal(0, random.uniform(2, 6), blurred.shape)
    return np.asarray(np.clip(noisy, 0, 255).round(), np.uint8)
