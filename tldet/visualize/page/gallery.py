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

    A row of ``objects`` and ``detections`` is x, y, width and height in pixels, class, score, kind, and the outline of
    a mask as an SVG path or "". The score of an object is that of its matching detection, or -1 if there is none.

    Attributes:
        name: file name or id.
        width: pixels.
        height: pixels.
        objects: rows of the ground truth.
        detections: rows of the detections.
        source: the image as a data URL; "" if it is not available.
    """

    name: str
    width: int
    height: int
    objects: Sequence[DrawnRow] = field(default=())
    detections: Sequence[DrawnRow] = field(default=())
    source: str = ""


def gallery(
    images: Sequence[GalleryImage], classes: Sequence[str], meanings: Mapping[str, str], threshold: float
) -> str:
    """Return the HTML of a gallery; ``gallery.js`` draws it.

    Args:
        images: the images in the order of the gallery.
        classes: name of each class.
        meanings: description of each type of error.
        threshold: initial score threshold.
    """
    content: dict[str, Any] = {
        "classes": list(classes),
        "kinds": list(meanings),
        "threshold": threshold,
        "images": [asdict(image) for image in images],
    }
    data = json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("</", "<\\/")
    choices = "".join(f'<option value="{kind}">{kind}: {escape(text)}</option>' for kind, text in meanings.items())
    keys = "".join(
        f'<span><i class="key {css}" style="border-color:currentColor;color:{color}"></i>{escape(text)}</span> '
        for css, text, color in _KEYS
    )
    return (
        '<div class="filters"><label>Class <select id="filter-class"><option value="">all</option></select></label>'
        f'<label>Error <select id="filter-error"><option value="">all</option>{choices}</select></label>'
        '<label>Score threshold <input id="filter-score" type="range" min="0" max="1" step="0.01">'
        ' <span id="filter-score-text"></span></label><span id="filter-count" role="status"></span></div>'
        f'<p class="dim">{keys}</p><div class="gallery"></div>'
        '<button type="button" class="more" id="filter-more">Show more</button>'
        f'<script type="application/json" id="gallery-data">{data}</script>'
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
