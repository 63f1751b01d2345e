"""A small dataset in every format, written from one list of boxes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from tldet.data.formats.records import Dataset, ImageRecord, Shape
from tldet.data.formats.writers.voc import write_voc
from tldet.data.formats.writers.yolo import write_yolo


class Made(NamedTuple):
    """One image: name, width, height, and its objects as class, x0, y0, x1, y1."""

    name: str
    width: int
    height: int
    objects: Sequence[tuple[str, float, float, float, float]]


IMAGES = (
    Made("a.png", 100, 80, [("cat", 10, 20, 50, 60), ("dog", 30.5, 10, 90, 70.25)]),
    Made("b.png", 64, 64, [("cat", 0, 0, 64, 64)]),
    Made("c.png", 48, 96, [("dog", 1, 2, 3, 4)]),
)
CLASSES = ["cat", "dog"]


def write_images(folder: Path, images: Sequence[Made] = IMAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        pixels = np.full((image.height, image.width, 3), 40 * number, np.uint8)
        cv2.imwrite(str(folder / image.name), pixels)


def _records(folder: Path, images: Sequence[Made]) -> list[ImageRecord]:
    return [
        ImageRecord(
            folder / one.name, folder, "", None, (one.height, one.width), [Shape(o[0], "", o[1:]) for o in one.objects]
        )
        for one in images
    ]


def coco(folder: Path, images: Sequence[Made]) -> None:
    objects = [(number, one) for number, image in enumerate(images, start=1) for one in image.objects]
    values = {
        "images": [
            {"id": number, "file_name": one.name, "width": one.width, "height": one.height}
            for number, one in enumerate(images, start=1)
        ],
        "annotations": [
            {
                "id": row,
                "image_id": number,
                "category_id": CLASSES.index(one[0]) + 1,
                "bbox": [one[1], one[2], one[3] - one[1], one[4] - one[2]],
            }
            for row, (number, one) in enumerate(objects, start=1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
    }
    (folder / "instances.json").write_text(json.dumps(values))


def yolo(folder: Path, images: Sequence[Made]) -> None:
    found = Dataset("made", folder, _records(folder, images), CLASSES)
    write_yolo(found, {"train": found.images}, CLASSES, folder)
    (folder / "images" / "train").mkdir(parents=True, exist_ok=True)
    for one in images:
        (folder / one.name).rename(folder / "images" / "train" / one.name)


def voc(folder: Path, images: Sequence[Made]) -> None:
    write_voc({None: _records(folder, images)}, folder, "continuous")


def cvat(folder: Path, images: Sequence[Made]) -> None:
    lines = ["<annotations>", "<version>1.1</version>"]
    for number, one in enumerate(images):
        lines.append(f'<image id="{number}" name="{one.name}" width="{one.width}" height="{one.height}">')
        for label, x0, y0, x1, y1 in one.objects:
            lines.append(f'<box label="{label}" xtl="{x0}" ytl="{y0}" xbr="{x1}" ybr="{y1}" occluded="0"></box>')
        lines.append("</image>")
    (folder / "annotations.xml").write_text("\n".join([*lines, "</annotations>"]))


def labelme(folder: Path, images: Sequence[Made]) -> None:
    for one in images:
        shapes = [
            {"label": o[0], "points": [[o[3], o[2]], [o[1], o[4]]], "shape_type": "rectangle", "group_id": None}
            for o in one.objects
        ]
        values = {"shapes": shapes, "imagePath": one.name, "imageHeight": one.height, "imageWidth": one.width}
        (folder / one.name).with_suffix(".json").write_text(json.dumps(values))


def label_studio(folder: Path, images: Sequence[Made]) -> None:
    (folder / "project.json").write_text(json.dumps([_task(number, one) for number, one in enumerate(images, 1)]))


def _task(number: int, one: Made) -> dict[str, Any]:
    results = [
        {
            "id": f"r{row}",
            "type": "rectanglelabels",
            "original_width": one.width,
            "original_height": one.height,
            "value": {
                "x": 100 * o[1] / one.width,
                "y": 100 * o[2] / one.height,
                "width": 100 * (o[3] - o[1]) / one.width,
                "height": 100 * (o[4] - o[2]) / one.height,
                "rotation": 0,
                "rectanglelabels": [o[0]],
            },
        }
        for row, o in enumerate(one.objects)
    ]
    image = f"/data/upload/1/0a1b2c3d-{one.name}"
    return {"id": number, "data": {"image": image}, "annotations": [{"result": results, "was_cancelled": False}]}


def createml(folder: Path, images: Sequence[Made]) -> None:
    values = [
        {
            "image": one.name,
            "annotations": [
                {
                    "label": o[0],
                    "coordinates": {
                        "x": (o[1] + o[3]) / 2,
                        "y": (o[2] + o[4]) / 2,
                        "width": o[3] - o[1],
                        "height": o[4] - o[2],
                    },
                }
                for o in one.objects
            ],
        }
        for one in images
    ]
    (folder / "_annotations.createml.json").write_text(json.dumps(values))


def open_images(folder: Path, images: Sequence[Made]) -> None:
    lines = ["ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf"]
    for one in images:
        for label, x0, y0, x1, y1 in one.objects:
            across = f"{x0 / one.width!r},{x1 / one.width!r},{y0 / one.height!r},{y1 / one.height!r}"
            lines.append(f"{one.name.removesuffix('.png')},xclick,/m/{label},1,{across},0,0,0")
    (folder / "annotations-bbox.csv").write_text("\n".join(lines) + "\n")
    (folder / "class-descriptions-boxable.csv").write_text("/m/cat,cat\n/m/dog,dog\n")


WRITERS: dict[str, Callable[[Path, Sequence[Made]], None]] = {
    one.__name__: one for one in (coco, yolo, voc, cvat, labelme, label_studio, createml, open_images)
}


def make(folder: Path, name: str, images: Sequence[Made] = IMAGES) -> Path:
    """Write the dataset in a format and return its folder."""
    write_images(folder, images)
    WRITERS[name](folder, images)
    return folder
