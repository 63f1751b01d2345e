"""Findings about image files: missing, damaged, rotated, listed twice, or with a size that differs from the JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.data.checks.files import MISSING, Fault, check_file
from tldet.data.checks.findings import Finding, Repair
from tldet.data.checks.headers import UPRIGHT_FIRST, Header, boxes_fit, disagreement
from tldet.data.checks.records import Records
from tldet.data.image_formats import EXTENSIONS
from tldet.data.tracking import Track
from tldet.runtime.images import Limits
from tldet.structures.image import Size
from tldet.system.inputs import real_path
from tldet.text import are, counted

_THREADS, _CHUNK = 8, 64
_CUT = ("truncated", "cut off", "unexpected end")  # in messages about truncated files
_LISTED = 5


def check_names(records: Records) -> Iterator[Finding]:
    """Yield images without a name or a size, and files that are listed twice."""
    seen: defaultdict[str, list[int]] = defaultdict(list)
    for position, name in enumerate(records.file_names):
        key = int(records.image_ids[position])
        if not name:
            text = f"image id {key} has no file_name"
            yield records.of_image("image-name-missing", position, text, fix="add the file name")
            continue
        seen[records.disk_names[position] if records.disk_names else name].append(position)
        if records.folder is None and (records.sizes[position] <= 0).any():
            yield records.of_image("image-size-missing", position, f"image id {key} has no width and height")
    for name, positions in seen.items():
        for position in positions[1:]:
            ids = [int(records.image_ids[one]) for one in (positions[0], position)]
            text = f"image ids {ids[0]} and {ids[1]} refer to the same file {name}"
            yield records.of_image("image-repeated", position, text, fix="merge them into one entry")


def check_image_files(records: Records, track: Track = iter) -> Iterator[Finding]:
    """Yield image files that are missing, damaged, rotated, or whose size differs from the annotations.

    Args:
        records: annotations whose images were found.
        track: wraps the positions, to show progress.
    """
    paths = records.paths
    named = [position for position in range(len(paths)) if records.file_names[position]]
    objects = records.rows_by_image()
    for position, fault, header in _examined(records, paths, named, track):
        if header is not None and fault is not None:
            yield from _other_size(records, position, header, objects[position])
        elif fault is not None:
            yield _unusable(records, position, fault)
        elif header is not None and header.orientation > 1:
            yield _rotated(records, position, header)
        yield from _renamed(records, position, exists=fault is None or fault.problem != MISSING)


def _examined(
    records: Records, paths: Sequence[Path], named: Sequence[int], track: Track
) -> Iterator[tuple[int, Fault | None, Header | None]]:
    """Examine files in parallel."""

    def one(position: int) -> tuple[int, Fault | None, Header | None]:
        height, width = records.sizes[position].tolist()
        return (position, *check_file(position, paths[position], Limits(stated=(height, width))))

    chunks = [named[start : start + _CHUNK] for start in range(0, len(named), _CHUNK)]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda chunk: [one(position) for position in chunk], chunks)
        progress = iter(track(named))
        for chunk in found:
            for result in chunk:
                next(progress, None)
                yield result


def _unusable(records: Records, position: int, fault: Fault) -> Finding:
    path = records.paths[position]
    if fault.problem == MISSING:
        return records.of_image("image-missing", position, f"{path}: no such file", fix="add the file")
    code = "image-truncated" if any(word in fault.problem for word in _CUT) else "image-unreadable"
    return records.of_image(code, position, f"{path}: {fault.problem}", fix="copy or export the file again")


def _rotated(records: Records, position: int, header: Header) -> Finding:
    same = header.orientation < UPRIGHT_FIRST
    how = (
        "the boxes are assumed to be upright (the size is the same before and after the rotation)"
        if same
        else "the annotated size is upright"
    )
    return records.of_image("image-exif", position, f"EXIF orientation {header.orientation}; {how}")


def _other_size(records: Records, position: int, header: Header, rows: NDArray[np.int64]) -> Iterator[Finding]:
    """Yield the finding about an image whose size differs from the annotations, with an unambiguous repair if any."""
    height, width = records.sizes[position].tolist()
    upright: dict[str, Any] = {"width": header.upright[1], "height": header.upright[0]}
    boxes = records.boxes[rows]
    if min(height, width) <= 0:
        repairs = records.change_image(position, upright)
        text = f"image id {records.image_ids[position]} has no width and height; the file is {_text(header.upright)}"
        yield records.of_image("image-size-missing", position, text, fix="use the size of the file", repairs=repairs)
        return
    text = disagreement(header, (height, width), boxes)
    fits_file, fits_stated = boxes_fit(boxes, header.upright), boxes_fit(boxes, (height, width))
    if (height, width) == header.stored and fits_stated and len(rows):
        repairs = () if fits_file else _turned(records, position, header, rows)
        fix = "rotate boxes and size" if repairs else "check in the HTML report whether the boxes are upright"
        yield records.of_image("image-rotated", position, text, fix=fix, repairs=repairs, box=records.corners(rows[0]))
        return
    determined = fits_file and (not fits_stated or not len(rows))
    repairs = records.change_image(position, upright) if determined else ()
    fix = "use the size of the file" if determined else ""
    yield records.of_image("image-size", position, text, fix=fix, repairs=repairs)


def _turned(records: Records, position: int, header: Header, rows: NDArray[np.int64]) -> tuple[Repair, ...]:
    """Return the repairs that rotate size, boxes and polygons; empty if an object has an RLE mask."""
    size = {"width": header.upright[1], "height": header.upright[0]}
    changes = [*records.change_image(position, size)]
    for row in rows.tolist():
        outline = records.outline(row)
        if isinstance(outline, dict):
            return ()
        x0, y0, x1, y1 = records.corners(row)
        (a, b), (c, d) = (turn(point, header) for point in ((x0, y0), (x1, y1)))
        values: dict[str, Any] = {"bbox": [_number(v) for v in (min(a, c), min(b, d), abs(c - a), abs(d - b))]}
        if outline:
            values["segmentation"] = [_turned_polygon(polygon, header) for polygon in outline]
        changes += records.change(row, values)
    return tuple(changes)


def _turned_polygon(polygon: Sequence[float], header: Header) -> list[float]:
    points = zip(polygon[::2], polygon[1::2], strict=True)
    return [_number(value) for point in points for value in turn(point, header)]


def turn(point: tuple[float, float], header: Header) -> tuple[float, float]:
    """Rotate a point x, y of the stored image upright, for EXIF orientations 5 to 8 (which swap width and height)."""
    (height, width), (x, y) = header.stored, point
    across = height - y if header.orientation in (6, 7) else y
    down = width - x if header.orientation in (7, 8) else x
    return across, down


def _number(value: float) -> float:
    """Round to a millionth of a pixel, and whole numbers to integers."""
    rounded = round(value, 6)
    return int(rounded) if rounded == int(rounded) else rounded


def _renamed(records: Records, position: int, *, exists: bool) -> Iterator[Finding]:
    stated, name = records.file_names[position], records.disk_names[position]
    if exists and stated != name and len(records.image_rows):
        repairs = records.change_image(position, {"file_name": name})
        text = f"file name {stated!r} is {name!r} on disk"
        yield records.of_image("image-name-changed", position, text, fix="use the name on disk", repairs=repairs)


def check_unlisted(splits: Sequence[Records]) -> Iterator[Finding]:
    """Yield the image files in the image folders that no split lists."""
    listed = {str(real_path(path)) for records in splits for path in records.paths}
    folders = {str(real_path(path.parent)): records for records in splits for path in records.paths}
    for folder, records in folders.items():
        found = sorted(path for path in _entries(Path(folder)) if path.suffix.lower() in EXTENSIONS)
        missing = [path.name for path in found if str(real_path(path)) not in listed]
        if missing:
            named = ", ".join(missing[:_LISTED]) + (", ..." if len(missing) > _LISTED else "")
            share = f"{len(missing)} of {counted(len(found), 'image')}"
            text = f"{share} in {folder} {are(len(missing))} not listed in the annotations ({named})"
            yield records.finding("image-unlisted", text, others=len(missing) - 1)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:
        return []


def _text(size: Size) -> str:
    return f"{size[1]} x {size[0]}"
