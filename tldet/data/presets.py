"""Augmentation presets: lists of training transforms, applied after the ``Resize`` of a recipe."""

from __future__ import annotations

from typing import Any

PRESETS = ("none", "light", "standard", "strong")  # by strength
_FLIP = {"type": "HorizontalFlip", "p": 0.5}


def preset(name: str, *, masks: bool) -> list[dict[str, Any]]:
    """Return the transforms of a preset.

    - ``none``: no transforms.
    - ``light``: horizontal flips and weak color jitter, for short runs.
    - ``standard``: crops, horizontal flips, shifts, scaling, small rotations and color jitter; blur, noise or JPEG
      compression with probability 0.1.
    - ``strong``: large-scale jitter, horizontal flips, mosaic, MixUp, rotations, shear, strong color jitter and coarse
      dropout; blur, noise or JPEG compression with probability 0.2; copy-paste if the samples have masks.

    Args:
        name: one of :data:`PRESETS`.
        masks: True if the samples have masks.
    """
    if name == "strong":
        return _strong([{"type": "CopyPaste", "p": 0.3}] if masks else [])
    return {"none": [], "light": _light(), "standard": _standard()}[name]


def _light() -> list[dict[str, Any]]:
    return [dict(_FLIP), {"type": "ColorJitter", "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "p": 0.3}]


def _standard() -> list[dict[str, Any]]:
    return [
        {"type": "RandomCrop", "scale": [0.5, 1.0], "p": 0.5},
        dict(_FLIP),
        {
            "type": "A.Affine",
            "scale": [0.8, 1.2],
            "translate_percent": [-0.1, 0.1],
            "rotate": [-5, 5],
            "balanced_scale": True,
            "p": 0.3,
        },
        {"type": "ColorJitter", "brightness": 0.2, "contrast": 0.2, "saturation": 0.3, "hue": 0.02, "p": 0.5},
        _degraded(0.1),
    ]


def _strong(pasting: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {"type": "LargeScaleJitter", "scale": [0.5, 1.75], "p": 0.8},
        dict(_FLIP),
        *pasting,
        {"type": "Mosaic", "p": 0.4},
        {"type": "MixUp", "p": 0.1},
        {"type": "A.Affine", "rotate": [-10, 10], "shear": [-5, 5], "p": 0.3},
        {"type": "ColorJitter", "brightness": 0.3, "contrast": 0.3, "saturation": 0.4, "hue": 0.03, "p": 0.8},
        _degraded(0.2),
        {
            "type": "A.CoarseDropout",
            "num_holes_range": [1, 4],
            "hole_height_range": [0.03, 0.1],
            "hole_width_range": [0.03, 0.1],
            "p": 0.2,
        },
    ]


def _degraded(p: float) -> dict[str, Any]:
    """Return the transform that degrades an image with probability ``p``: by blur, noise or compression."""
    kinds: list[dict[str, Any]] = [
        {"type": "A.MotionBlur", "blur_limit": [3, 5], "p": 1.0},
        {"type": "A.GaussNoise", "std_range": [0.02, 0.06], "p": 1.0},
        {"type": "A.ImageCompression", "quality_range": [50, 90], "p": 1.0},
    ]
    return {"type": "A.OneOf", "transforms": kinds, "p": p}
