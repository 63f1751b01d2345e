"""Gallery of images with ground truth next to detections, filtered by class, error and score."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

DrawnRow = tuple[float, float, float, float, int, float, str, str]


@dataclass(frozen=True)
class GalleryImage:
    """An image of a gallery.

    A row is x, y, width and height in pixels, class, score (-1 for an object), kind, and the outline of a mask as an
    SVG path or "".

    Attributes:
        name: file name or id.
        width: pixels.
        height: pixels.
        objects: rows of the ground truth.
        found: for each detector, the score of the detection that matches each object, or -1 if there is none.
        detections: rows of the detections of each detector.
        source: the image as a data URL; "" if it is not available.
    """

    name: str
    width: int
    height: int
    objects: Sequence[DrawnRow] = field(default=())
    found: Sequence[Sequence[float]] = field(default=())
    detections: Sequence[Sequence[DrawnRow]] = field(default=())
    source: str = ""


def gallery(
    images: Sequence[GalleryImage], classes: Sequence[str], meanings: Mapping[str, str], detectors: Mapping[str, float]
) -> str:
    """Return the HTML of a gallery; ``gallery.js`` draws it.

    Each image is shown with its ground truth and with the detections of each detector. Images without an error are
    shown if no class and no type of error is selected.

    Args:
        images: the images in the order of the gallery.
        classes: name of each class.
        meanings: description of each type of error.
        detectors: initial score threshold of each detector, by name; "" for the only one.
    """
    content: dict[str, Any] = {
        "classes": list(classes),
        "kinds": list(meanings),
        "detectors": [{"name": name, "threshold": round(value, 2)} for name, value in detectors.items()],
        "images": [asdict(image) for image in images],
    }
    data = json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    choices = "".join(f'<option value="{kind}">{kind}: {escape(text)}</option>' for kind, text in meanings.items())
    sliders = "".join(_slider(number, name) for number, name in enumerate(detectors))
    keys = "".join(
        f'<span class="keyed"><i class="key {css}" style="border-color:currentColor;color:{color}"></i>'
        f"{escape(text)}</span> "
        for css, text, color in _KEYS
    )
    return (
        '<div class="filters"><label>Class <select id="filter-class"><option value="">all</option></select></label>'
        f'<label>Error <select id="filter-error"><option value="">all</option>{choices}</select></label>'
        f'{sliders}<span id="filter-count" role="status"></span></div>'
        f'<p class="dim">{keys}</p><div class="gallery{" wide" if len(detectors) > 1 else ""}"></div>'
        '<button type="button" class="more" id="filter-more">Show more</button>'
        f'<script type="application/json" id="gallery-data">{data}</script>'
    )


def _slider(number: int, name: str) -> str:
    """Return the score threshold of a detector."""
    key = f"filter-score-{number}" if number else "filter-score"
    label = f"Score threshold, {name}" if name else "Score threshold"
    return (
        f'<label>{escape(label)} <input id="{key}" type="range" min="0" max="1" step="0.01"> '
        f'<span id="{key}-text"></span></label>'
    )


_KEYS = (
    ("object", "object", "#d9c400"),
    ("missed", "missed object", "#ff6ec7"),
    ("Hit", "true positive", "#35b8e8"),
    ("Cls", "Cls", "#ff9148"),
    ("Loc", "Loc", "#e6c200"),
    ("Both", "Both", "#c58aff"),
    ("Dupe", "Dupe", "#45d08c"),
    ("Bkg", "Bkg", "#ff5a5a"),
)
