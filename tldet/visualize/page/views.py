"""Gallery of images in several views, such as before and after augmentation, with filters."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

ViewRow = tuple[float, float, float, float, int, float, bool, str]


@dataclass(frozen=True)
class View:
    """An image with boxes.

    Attributes:
        title: title of the view, such as "labels".
        width: pixels.
        height: pixels.
        source: the image as a data URL.
        rows: x, y, width and height in pixels, class, score (-1 for a label), True for an object that training ignores,
            and the outline of a mask as an SVG path or "".
    """

    title: str
    width: int
    height: int
    source: str
    rows: Sequence[ViewRow]


@dataclass(frozen=True)
class ViewedImage:
    """An image of the gallery; the filters use the rows of its first view."""

    name: str
    views: Sequence[View]


def views_gallery(images: Sequence[ViewedImage], classes: Sequence[str], threshold: float | None) -> str:
    """Return the HTML of a gallery; ``views.js`` draws it.

    Args:
        images: the images.
        classes: name of each class.
        threshold: initial score threshold of the detections; None without detections.
    """
    content: dict[str, Any] = {"classes": list(classes), "images": [asdict(image) for image in images]}
    data = json.dumps(content, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    score = "" if threshold is None else _SCORE.format(threshold)
    return (
        '<div class="filters"><label>Class <select id="view-class"><option value="">all</option></select></label>'
        '<label>File name contains <input id="view-name" type="search"></label>'
        '<label>At least <input id="view-count" type="number" min="0" value="0" style="width:5em"> objects</label>'
        '<label>Has an object under <input id="view-size" type="number" min="0" value="" style="width:5em"> px</label>'
        '<label>Sort by <select id="view-order"><option value="">dataset order</option>'
        '<option value="most">number of objects, descending</option>'
        '<option value="small">smallest object, ascending</option>'
        f'</select></label>{score}<span id="view-shown" role="status"></span></div>'
        '<div class="gallery" id="views"></div><button type="button" class="more" id="view-more">Show more</button>'
        f'<script type="application/json" id="view-data">{data}</script>'
    )


_SCORE = (
    '<label>Score threshold <input id="view-score" type="range" min="0" max="1" step="0.01" value="{}"> '
    '<span id="view-score-text"></span></label>'
)
