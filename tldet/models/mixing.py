"""Mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor


def mix_images(
    images: Tensor, targets: Tensor, seed: int | Sequence[int], *, mixup: float, cutmix: float
) -> tuple[Tensor, Tensor]:
    """Mix each image with another one of its batch, by mixup or CutMix with equal probability.

    Args:
        images: (B, 3, H, W).
        targets: (B, K) class probabilities.
        seed: seed of the random numbers.
        mixup: parameter of the beta distribution for mixup; 0 for no mixup.
        cutmix: parameter of the beta distribution for CutMix; 0 for no CutMix.

    Returns:
        (B, 3, H, W) and (B, K); the unchanged arguments if both parameters are 0.
    """
    if not mixup and not cutmix:
        return images, targets
    random = np.random.default_rng(seed)
    cut = bool(cutmix) and (not mixup or random.random() < 0.5)
    alpha = cutmix if cut else mixup
    share = random.beta(alpha, alpha)
    partner = np.roll(np.arange(len(images)), int(random.integers(1, max(2, len(images)))))
    others = images[partner]
    if cut:
        rows, columns = _window(images.shape[-2], images.shape[-1], share, random)
        images = images.clone()
        images[..., rows, columns] = others[..., rows, columns]
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        share = 1 - area / (images.shape[-2] * images.shape[-1])
    else:
        images = images.lerp(others, 1 - share)
    return images, targets.lerp(targets[partner], 1 - share)


def _window(height: int, width: int, share: float, random: np.random.Generator) -> tuple[slice, slice]:
    """Draw a window of 1 - ``share`` of the area with a random center, clipped to the image (Yun et al. eq. 2)."""
    half = 0.5 * (1 - share) ** 0.5
    y, x = random.uniform(0, height), random.uniform(0, width)
    rows = slice(max(0, round(y - half * height)), min(height, round(y + half * height)))
    return rows, slice(max(0, round(x - half * width)), min(width, round(x + half * width)))
