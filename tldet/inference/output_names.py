"""Names of drawn images and videos in the output folder."""

from __future__ import annotations

from pathlib import Path

DRAWABLE = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})


class Names:
    """Output names of a run. A name that is already used, ignoring case, gets a number."""

    def __init__(self) -> None:
        self._used: dict[str, int] = {}  # name -> last number tried for it

    def claim(self, name: Path) -> Path:
        """Return ``name``, numbered if it is already used."""
        free, number = name, self._used.get(str(name).lower(), 1)
        while str(free).lower() in self._used:
            number += 1
            free = name.with_stem(f"{name.stem}_{number}")
        self._used[str(name).lower()] = number
        self._used.setdefault(str(free).lower(), 1)
        return free


def drawn_name(kind: str, name: Path) -> Path:
    """Return the output path of an input: images keep their format if it can be written, videos become MP4.

    Args:
        kind: "image", "video" or "camera".
        name: path of the input inside the output folder.
    """
    if kind != "image":
        return name.with_suffix(".mp4")
    return name if name.suffix.lower() in DRAWABLE else name.with_suffix(".png")
