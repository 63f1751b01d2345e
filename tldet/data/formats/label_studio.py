"""Label Studio: its JSON and JSON-MIN exports, with regions in percent of the image size.

Source: https://labelstud.io/guide/export. Brush masks are packed as in https://github.com/thi-ng/umbrella (rle-pack).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from tldet.data.formats.json_files import as_dict, as_list, entries, opening, points_of, read_images
from tldet.data.formats.masks import empty_mask, rle_of
from tldet.data.formats.records import (
    Dataset,
    ImageRecord,
    Shape,
    Tally,
    bounds,
    finite_number,
    label_text,
    polygon_of,
    side,
)
from tldet.data.formats.registry import Format, ReadOptions, register
from tldet.data.formats.sizes import fill_sizes
from tldet.data.formats.tree import Tree
from tldet.errors import DataError
from tldet.structures.image import Size

_SHAPES = ("rectangle", "polygon", "brush", "ellipse")
_UPLOAD = 9  # characters that an upload puts before a file name: 8 hexadecimal digits and a hyphen


def _find(tree: Tree) -> list[Path]:
    """Return the JSON lists of tasks with regions."""
    return [path for path in tree.annotations(".json") if _is_label_studio(tree.start(path))]


def _is_label_studio(start: bytes) -> bool:
    tasks = b'"data"' in start and (b'"annotations"' in start or b'"completions"' in start)
    minimal = b'"original_width"' in start or b'"annotator"' in start or b'"annotation_id"' in start
    return opening(start) == b"[" and b'"coordinates"' not in start and (tasks or minimal)


def _read(tree: Tree, files: Sequence[Path], _: ReadOptions) -> Dataset:
    """Read the tasks of all files, with the first annotation of each task that was not canceled.

    Raises:
        DataError: a file is damaged, or a region is wrong; the message names the task.
    """
    found = read_images("label_studio", tree, files, _images)
    fill_sizes(found.images)
    return found


def _images(tree: Tree, path: Path, content: Any, tally: Tally) -> Iterator[ImageRecord]:
    return (_task(tree, path, location, task, tally) for location, task in entries(content, path))


def _task(tree: Tree, path: Path, location: str, task: dict[str, Any], tally: Tally) -> ImageRecord:
    who = f"{path}: {location}"
    data = as_dict(task.get("data", task), f"{who}.data")
    upload = task.get("file_upload")
    names = [value for value in (data.get("image"), data.get("img"), upload) if isinstance(value, str) and value]
    if not names:
        raise DataError(f"{who}: has no 'image'")
    image = ImageRecord(_image(tree, names, path), path, location, tree.split(path), None, [])
    regions = list(_regions(task, location, path, tally))
    labels = {region.get("id"): found for region, _ in regions if (found := _labels(region))}
    for region, at in regions:
        _add_region(region, at, labels.get(region.get("id"), []), image, tally)
    return image


def _image(tree: Tree, names: Sequence[str], path: Path) -> Path:
    """Return the image of a task: by its path, or without the prefix that an upload puts before its name."""
    paths = []
    for name in names:
        parts = urlsplit(name)
        local = parse_qs(parts.query).get("d")  # /data/local-files/?d=folder/image.jpg
        plain = local[0] if local else unquote(parts.path)
        paths.append(plain)
        base = plain.rsplit("/", 1)[-1]
        if len(base) > _UPLOAD and base[_UPLOAD - 1] == "-":
            paths.append(base[_UPLOAD:])
    found = [tree.find(one, path) for one in paths]
    return next((one for one in found if one.is_file()), found[0])


def _regions(task: dict[str, Any], location: str, path: Path, tally: Tally) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the regions of a task with their locations."""
    if "data" not in task:  # JSON-MIN
        for key, value in task.items():
            if isinstance(value, list):
                for number_, one in enumerate(value):
                    at = f"{location}.{key}[{number_}]"
                    region = as_dict(one, f"{path}: {at}")
                    yield {**region, "value": region, "type": _kind(region)}, at
        return
    key = "annotations" if "annotations" in task else "completions"
    given = [as_dict(one, f"{path}: {location}.{key}") for one in as_list(task.get(key), f"{path}: {location}", key)]
    valid = [(number_, one) for number_, one in enumerate(given) if not one.get("was_cancelled")]
    for number_, _ in valid[1:]:
        tally.add(f"{path}: {location}.{key}[{number_}]", "further annotation", "of a task left out")
    for number_, one in valid[:1]:
        at = f"{location}.{key}[{number_}].result"
        for row, region in enumerate(as_list(one.get("result"), f"{path}: {at}", "result")):
            yield as_dict(region, f"{path}: {at}[{row}]"), f"{at}[{row}]"


def _kind(region: Mapping[str, Any]) -> str:
    if any(isinstance(region.get(f"{kind}labels"), list) for kind in _SHAPES):
        return next(f"{kind}labels" for kind in _SHAPES if isinstance(region.get(f"{kind}labels"), list))
    return "polygon" if "points" in region else "brush" if "rle" in region else "rectangle"


def _labels(region: Mapping[str, Any]) -> list[Any]:
    value = region.get("value")
    found = [one for key, one in value.items() if key.endswith("labels")] if isinstance(value, dict) else []
    return found[0] if found and isinstance(found[0], list) else []


def _add_region(region: dict[str, Any], at: str, labels: list[Any], image: ImageRecord, tally: Tally) -> None:
    who = f"{image.source}: {at}"
    kind = str(region.get("type", "")).removesuffix("labels")
    if kind not in _SHAPES:
        if kind:  # "labels" alone holds the class of another region
            tally.add(who, "region", f"of type {region.get('type')} left out")
        return
    label = label_text(labels[0] if labels else None, who, "label")
    if len(labels) > 1:
        tally.add(who, "region", "with several labels read with the first one")
    value, size = as_dict(region.get("value"), f"{who}.value"), _size(region, image, who)
    if kind == "brush":
        image.shapes.append(Shape(label, at, None, rle=rle_of(_brush(value, size, who), who)))
        return
    if kind == "ellipse":
        tally.add(who, "ellipse", "read as the box around it")
    polygon = {"rectangle": _rectangle, "polygon": _polygon, "ellipse": _ellipse}[kind](value, size, who)
    plain = kind == "ellipse" or (kind == "rectangle" and not value.get("rotation"))
    image.shapes.append(Shape(label, at, bounds([polygon]), [] if plain else [polygon]))


def _size(region: Mapping[str, Any], image: ImageRecord, who: str) -> Size:
    if region.get("original_width") is None and region.get("original_height") is None:
        fill_sizes([image])
        assert image.size is not None
        return image.size
    width, height = (side(region.get(f"original_{key}"), who, f"original_{key}") for key in ("width", "height"))
    if image.size not in (None, (height, width)):
        raise DataError(f"{who}: states another image size ({width} x {height}) than the regions before it")
    image.size = (height, width)
    return image.size


def _percents(value: Mapping[str, Any], keys: Sequence[str], who: str) -> list[float]:
    return [finite_number(value.get(key), who, key) / 100 for key in keys]


def _rectangle(value: Mapping[str, Any], size: Size, who: str) -> list[float]:
    """Return the corners of a rectangle, which is rotated clockwise about its upper left corner."""
    x, y, width, height = _percents(value, ("x", "y", "width", "height"), who)
    if width < 0 or height < 0:
        raise DataError(f"{who}: {'width' if width < 0 else 'height'} is negative")
    tall, wide = size
    angle = math.radians(finite_number(value.get("rotation") or 0, who, "rotation"))
    cos, sin = (math.cos(angle), math.sin(angle)) if angle else (1.0, 0.0)
    corners = [(0.0, 0.0), (width * wide, 0.0), (width * wide, height * tall), (0.0, height * tall)]
    return polygon_of([(x * wide + a * cos - b * sin, y * tall + a * sin + b * cos) for a, b in corners])


def _polygon(value: Mapping[str, Any], size: Size, who: str) -> list[float]:
    points = points_of(value.get("points"), who)
    if len(points) < 3:
        raise DataError(f"{who}: a polygon needs 3 points, not {len(points)}")
    return polygon_of([(x / 100 * size[1], y / 100 * size[0]) for x, y in points])


def _ellipse(value: Mapping[str, Any], size: Size, who: str) -> list[float]:
    x, y, rx, ry = _percents(value, ("x", "y", "radiusX", "radiusY"), who)
    x, rx, y, ry = x * size[1], rx * size[1], y * size[0], ry * size[0]
    angle = math.radians(finite_number(value.get("rotation") or 0, who, "rotation"))
    half_x = math.hypot(rx * math.cos(angle), ry * math.sin(angle))
    half_y = math.hypot(rx * math.sin(angle), ry * math.cos(angle))
    return [x - half_x, y - half_y, x + half_x, y + half_y]


def _brush(value: Mapping[str, Any], size: Size, who: str) -> NDArray[np.uint8]:
    """Decode a brush mask: RGBA pixels in runs; the alpha channel is the mask."""
    data = as_list(value.get("rle"), who, "rle")
    total = empty_mask(size, who).size * 4
    if not data or not all(isinstance(one, int) and 0 <= one < 256 for one in data):
        raise DataError(f"{who}: rle must be a list of bytes")
    bits = _Bits(np.unpackbits(np.array(data, np.uint8)))
    try:
        found = _unpack(bits, total)
    except (IndexError, ValueError):
        raise DataError(f"{who}: rle is not a brush mask of {size[1]} x {size[0]}") from None
    return found.reshape(*size, 4)[:, :, 3]


class _Bits:
    """Reader of unsigned integers from a sequence of bits."""

    def __init__(self, bits: NDArray[np.uint8]) -> None:
        self.bits, self.at = bits, 0

    def read(self, count: int) -> int:
        """Return the next integer of ``count`` bits."""
        taken = self.bits[self.at : self.at + count]
        if len(taken) < count:
            raise IndexError
        self.at += count
        return int("".join(map(str, taken.tolist())), 2)


def _unpack(bits: _Bits, total: int) -> NDArray[np.uint8]:
    if bits.read(32) != total:
        raise ValueError
    word = bits.read(5) + 1
    sizes = [bits.read(4) + 1 for _ in range(4)]
    found, at = np.zeros(total, np.uint8), 0
    while at < total:
        repeated = bits.read(1)
        end = at + 1 + bits.read(sizes[bits.read(2)])
        if repeated:
            found[at:end] = bits.read(word) & 255
        else:
            found[at:end] = [bits.read(word) & 255 for _ in range(end - at)]
        at = end
    return found


register(Format("label_studio", "Label Studio", _find, _read))
