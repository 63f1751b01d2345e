"""Three transforms: a class with settings, a plain function, and a class that needs another image."""

from dataclasses import replace

import numpy as np
import torch

from tldet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class Rotate180:
    """Rotate image, boxes and masks by 180 degrees with probability ``p``."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image, target, rng):
        if rng.random() >= self.p:
            return image, target
        height, width = image.shape[:2]
        x0, y0, x1, y1 = target.boxes.unbind(1)
        boxes = torch.stack([width - x1, height - y1, width - x0, height - y0], 1)
        masks = None if target.masks is None else target.masks.flip(1, 2)
        return np.ascontiguousarray(image[::-1, ::-1]), replace(target, boxes=boxes, masks=masks)


@TRANSFORMS.register_module()
def swap_channels(image, target, rng, p: float = 0.5):
    """Permute red, green and blue with probability ``p``."""
    return (image[..., rng.permutation(3)] if rng.random() < p else image), target


@TRANSFORMS.register_module()
class BlendImages:
    """Blend the image with another one and keep the boxes of both, with probability ``p``; masks are not supported."""

    extra = 1  # number of further samples, passed as ``others``

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, image, target, rng, others):
        if rng.random() >= self.p:
            return image, target
        ((other, more),) = others
        mixed = np.zeros(np.maximum(image.shape, other.shape), np.uint16)
        for part in (image, other):
            mixed[: part.shape[0], : part.shape[1]] += part
        fields = {
            name: torch.cat([getattr(target, name), getattr(more, name)]) for name in ("boxes", "labels", "ignore")
        }
        return (mixed // 2).astype(np.uint8), replace(target, **fields)
