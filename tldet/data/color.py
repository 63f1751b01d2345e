"""Color augmentation."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import cv2
import numpy as np

from tldet.config import require_ranges
from tldet.data.transforms import Draws, LabeledSample, SampleTransform
from tldet.registry import TRANSFORMS
from tldet.structures.image import ImageArray

TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])  # NTSC, from RGB
FROM_YIQ = np.linalg.inv(TO_YIQ)


@TRANSFORMS.register_module()
class ColorJitter(SampleTransform):
    """Change brightness, contrast, saturation and hue with probability ``p``.

    All four are combined into one matrix that is applied to the color of each pixel. Brightness scales the color,
    contrast the distance to the mean gray of the image, saturation the distance to the gray of the pixel. Hue is a
    rotation of the two color axes of YIQ.

    Args:
        brightness: the factor is drawn from 1 - brightness to 1 + brightness.
        contrast: the factor is drawn from 1 - contrast to 1 + contrast.
        saturation: the factor is drawn from 1 - saturation to 1 + saturation.
        hue: largest rotation in both directions, as a fraction of the full circle.
        p: probability.
    """

    def __init__(
        self,
        brightness: float = 0.2,
        contrast: float = 0.2,
        saturation: float = 0.2,
        hue: float = 0.02,
        p: float = 0.5,
    ) -> None:
        self.brightness, self.contrast, self.saturation, self.hue, self.p = brightness, contrast, saturation, hue, p
        factors = dict.fromkeys(("brightness", "contrast", "saturation"), "[0, inf)")
        require_ranges(self, hue="[0, 0.5]", p="[0, 1]", **factors)

    def __call__(self, sample: LabeledSample, draws: Draws) -> LabeledSample:
        """Change the colors of the sample, or return it unchanged."""
        random = draws.image
        if random.random() >= self.p:
            return sample
        ranges = (self.brightness, self.contrast, self.saturation)
        bright, contrast, saturation = (random.uniform(max(0.0, 1 - width), 1 + width) for width in ranges)
        angle = 2 * np.pi * random.uniform(-self.hue, self.hue)
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = FROM_YIQ @ np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]]) @ TO_YIQ
        colors = rotation @ (saturation * np.eye(3) + (1 - saturation) * TO_YIQ[0])  # gray is unchanged
        gray = float(sample.image[::8, ::8].mean((0, 1)) @ TO_YIQ[0])
        matrix = np.empty((3, 4))
        matrix[:, :3], matrix[:, 3] = bright * contrast * colors, bright * (1 - contrast) * gray
        return replace(sample, image=cast(ImageArray, cv2.transform(sample.image, matrix)))
