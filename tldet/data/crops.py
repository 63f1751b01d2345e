"""Cuts of a fixed size, as classification takes them."""

from __future__ import annotations

from tldet.data.transforms import Albumentation, albumentations
from tldet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class RandomResizedCrop(Albumentation):
    """Cut out a random part and scale it to ``size`` x ``size`` (Szegedy et al. 2015, section 6).

    Args:
        size: pixels of the side that comes out.
        scale: least and greatest share of the picture's area.
        ratio: least and greatest width / height before scaling.
        least_visible: an object of which less than this share remains is dropped.
    """

    def __init__(
        self,
        size: int = 224,
        scale: tuple[float, float] = (0.25, 1.0),
        ratio: tuple[float, float] = (0.75, 1.3333),
        least_visible: float = 0.3,
    ) -> None:
        _check_size(size)
        if not (0 < scale[0] <= scale[1] <= 1 and 0 < ratio[0] <= ratio[1]):
            raise ValueError(f"scale={scale} must rise within 0..1 and ratio={ratio} must rise above 0")
        library = albumentations()
        cut = library.RandomResizedCrop((size, size), tuple(scale), tuple(ratio), area_for_downscale="image")
        super().__init__(cut, least_visible=least_visible)


@TRANSFORMS.register_module()
class CenterCrop(Albumentation):
    """Scale so that the short side is ``size / share`` and cut the middle ``size`` x ``size`` out.

    Args:
        size: pixels of the side that comes out.
        share: of the short side that is kept.
    """

    def __init__(self, size: int = 224, share: float = 0.875) -> None:
        _check_size(size)
        if not 0 < share <= 1:
            raise ValueError(f"share={share} must lie above 0 and be at most 1")
        library = albumentations()
        scale = library.SmallestMaxSize(max(size, round(size / share)), area_for_downscale="image")
        super().__init__(library.Sequential([scale, library.CenterCrop(size, size)], p=1.0), least_visible=0.1)


def _check_size(size: int) -> None:
    if size < 1:
        raise ValueError(f"size={size} must be at least 1")
