"""Readers of formats: shapes, splits, names of images, and what is left out."""

from __future__ import annotations

import base64
import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.data.formats.made import IMAGES, WRITERS, Made, make, write_images
from tests.data.formats.matrix import difference, matrix
from tests.data.formats.twins import boxes_of, prepared
from tldet.data.formats.detect import detect_format
from tldet.data.formats.records import Dataset, Shape
from tldet.data.formats.tree import Tree
from tldet.data.masks import decode_mask
from tldet.errors import DataError


def shapes_of(found: Dataset, name: str = "a.png") -> list[Shape]:
    return next(image for image in found.images if image.path.name == name).shapes


def test_each_format_is_converted_to_each_and_back(tmp_path: Path) -> None:
    rows = matrix(tmp_path)
    assert len(rows) == 3 * len(WRITERS)
    for name, target, there, back in rows:
        exact = "yolo" not in (name, target)
        assert there <= (0 if exact else 1e-9), (name, target)
        assert back <= (0 if exact else 1e-9), (name, target)


@pytest.mark.parametrize("name", WRITERS)
def test_a_format_is_detected_and_equals_coco(tmp_path: Path, name: str) -> None:
    found = prepared(make(tmp_path / name, name))
    assert found.format == name
    assert difference(prepared(make(tmp_path / "truth", "coco")), found) < 1e-9


@pytest.mark.parametrize("name", WRITERS)
def test_no_other_format_fits(tmp_path: Path, name: str) -> None:
    chosen = detect_format(Tree(make(tmp_path, name)))
    assert chosen is not None
    assert chosen[0].name == name


@pytest.mark.parametrize("name", ["voc", "cvat", "labelme", "createml", "label_studio"])
def test_folders_or_files_state_the_splits(tmp_path: Path, name: str) -> None:
    for split, image in (("train", IMAGES[0]), ("valid", IMAGES[1]), ("test", IMAGES[2])):
        make(tmp_path / split, name, [image])
    found = prepared(tmp_path)
    assert {split: [one.path.name for one in images] for split, images in found.splits().items()} == {
        "train": ["a.png"],
        "val": ["b.png"],
        "test": ["c.png"],
    }


def test_image_sets_state_the_splits_of_voc(tmp_path: Path) -> None:
    make(tmp_path, "voc")
    sets = tmp_path / "ImageSets" / "Main"
    sets.mkdir(parents=True)
    (sets / "train.txt").write_text("a\n")
    (sets / "val.txt").write_text("b\n")
    found = prepared(tmp_path)
    assert {split: len(images) for split, images in found.splits().items()} == {"train": 1, "val": 1}
    assert found.tally.counts() == {"images in no list of ImageSets/Main left out": 1}
    (sets / "val.txt").write_text("a\n")
    with pytest.raises(DataError, match=r"lists a in both train\.txt and val\.txt"):
        prepared(tmp_path)


@pytest.mark.parametrize(
    ("xmin", "expected", "reason"),
    [
        ("0", (0, 20, 50, 60), "a corner is 0"),
        ("9.5", (9.5, 20, 50, 60), "not a whole"),
        ("10", (9, 19, 50, 60), "definition"),
    ],
)
def test_the_meaning_of_voc_corners_is_found(
    tmp_path: Path, xmin: str, expected: tuple[float, ...], reason: str
) -> None:
    make(tmp_path, "voc", [Made("a.png", 100, 80, [("cat", 10, 20, 50, 60)])])
    path = tmp_path / "Annotations" / "a.xml"
    text = path.read_text().replace("<boxes>continuous</boxes>", "")
    path.write_text(text.replace("<xmin>10</xmin>", f"<xmin>{xmin}</xmin>"))
    found = prepared(tmp_path)
    assert shapes_of(found)[0].box == expected
    assert reason in found.details[0]


YAML = "names: [cat, dog]\n"


@pytest.mark.parametrize(
    ("text", "images", "labels"),
    [
        ("path: .\ntrain: images/train\n", "images/train", "labels/train"),
        ("train: ../train/images\nval: \n", "train/images", "train/labels"),  # Roboflow
        ("train: train\n", "train/images", "train/labels"),
        ("train: /content/drive/set/images/train\n", "images/train", "labels/train"),
        ("path: ../datasets/mine\ntrain: images/train\n", "images/train", "labels/train"),
        ("train: [images/train]\n", "images/train", "labels/train"),
        ("train: list.txt\n", "images/train", "labels/train"),
        ("train: images\\train\n", "images/train", "labels/train"),
        ("train: obj\nnc: 2\n", "obj", "obj"),  # labels beside the images
    ],
)
def test_paths_of_data_yaml(tmp_path: Path, text: str, images: str, labels: str) -> None:
    write_images(tmp_path / images)
    (tmp_path / labels).mkdir(parents=True, exist_ok=True)
    (tmp_path / labels / "a.txt").write_text("1 0.5 0.5 0.2 0.25\n")
    (tmp_path / "list.txt").write_text("./images/train/a.png\n./images/train/b.png\n\n./images/train/c.png\n")
    (tmp_path / "data.yaml").write_text(YAML + text)
    found = prepared(tmp_path)
    assert boxes_of(found) == {("a.png", "dog"): [(40.0, 30.0, 60.0, 50.0)]}
    assert len(found.images) == 3
    assert "2 of 3 images without a label file" in found.details


def test_polygons_and_keypoints_of_yolo(tmp_path: Path) -> None:
    make(tmp_path, "yolo")
    path = tmp_path / "labels" / "train" / "a.txt"
    path.write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n1 0.5 0.5 0.2 0.2\n")
    first, second = shapes_of(prepared(tmp_path))
    assert first.polygons == [[10, 8, 50, 8, 50, 40]]
    assert first.box == (10, 8, 50, 40)
    assert second.polygons == []
    yaml = tmp_path / "data.yaml"
    yaml.write_text(yaml.read_text() + "kpt_shape: [1, 3]\n")
    path.write_text("0 0.5 0.5 0.2 0.2 0.4 0.4 2\n")
    found = prepared(tmp_path)
    assert shapes_of(found)[0].box == pytest.approx((40, 32, 60, 48))
    assert found.tally.counts() == {"objects read without its keypoints": 1}


def test_label_files_without_data_yaml(tmp_path: Path) -> None:
    make(tmp_path, "yolo")
    (tmp_path / "data.yaml").unlink()
    with pytest.raises(DataError, match="has no class names"):
        prepared(tmp_path)
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    found = prepared(tmp_path)
    assert list(found.splits()) == ["train"]
    assert difference(prepared(make(tmp_path / "truth", "coco")), found) < 1e-9


CVAT = """<annotations><image id="0" name="frame/A.PNG" width="100" height="80" subset="Train">
<polygon label="cat" points="10,20;50,20;50,60"/>
<box label="dog" xtl="40" ytl="30" xbr="60" ybr="50" rotation="45"/>
<ellipse label="dog" cx="50" cy="40" rx="10" ry="5"/>
<mask label="cat" rle="1,2,1,2" left="10" top="20" width="3" height="2"/>
<points label="cat" points="1,1"/></image></annotations>"""


def test_shapes_of_cvat(tmp_path: Path) -> None:
    write_images(tmp_path / "images")
    (tmp_path / "annotations.xml").write_text(CVAT)
    found = prepared(tmp_path)
    polygon, rotated, ellipse, mask = shapes_of(found)
    assert polygon.polygons == [[10, 20, 50, 20, 50, 60]]
    half = 10 * math.sqrt(2)
    assert rotated.box == pytest.approx((50 - half, 40 - half, 50 + half, 40 + half))
    assert ellipse.box == (40, 35, 60, 45)
    assert mask.box == (11, 20, 13, 22)
    expected = np.zeros((80, 100), np.uint8)
    expected[20, 11:13] = expected[21, 11:13] = 1
    np.testing.assert_array_equal(decode_mask(mask.rle, (80, 100)), expected)
    assert list(found.splits()) == ["train"]
    assert sorted(found.tally.counts().values()) == [1, 1]


def test_groups_and_masks_of_labelme(tmp_path: Path) -> None:
    write_images(tmp_path)
    pixels = cv2.imencode(".png", np.array([[0, 255], [255, 255]], np.uint8))[1]
    parts = [[[1, 1], [9, 1], [9, 9]], [[20, 20], [30, 20], [30, 30]]]
    shapes = [{"label": "cat", "points": one, "shape_type": "polygon", "group_id": 3} for one in parts]
    mask = base64.b64encode(pixels.tobytes()).decode()
    shapes.append({"label": "dog", "points": [[5, 6], [6, 7]], "shape_type": "mask", "mask": mask})
    shapes.append({"label": "dog", "points": [[50, 40], [53, 44]], "shape_type": "circle"})
    shapes.append({"label": "dog", "points": [[50, 40]], "shape_type": "point"})
    values = {"shapes": shapes, "imagePath": "..\\images\\a.png", "imageHeight": 80, "imageWidth": 100}
    (tmp_path / "a.json").write_text(json.dumps(values))
    found = prepared(tmp_path)
    joined, masked, circle = shapes_of(found)
    assert joined.box == (1, 1, 30, 30)
    assert len(joined.polygons) == 2
    assert masked.box == (5, 6, 7, 8)
    assert decode_mask(masked.rle, (80, 100)).sum() == 3
    assert circle.box == (45, 35, 55, 45)
    assert sum(found.tally.counts().values()) == 3


def _bits(*numbers: tuple[int, int]) -> list[int]:
    text = "".join(f"{value:0{count}b}" for value, count in numbers)
    return [int(text[start : start + 8].ljust(8, "0"), 2) for start in range(0, len(text), 8)]


def test_brush_masks_of_label_studio(tmp_path: Path) -> None:
    """4 x 2 pixels of RGBA: a run of 16 zeros, then 16 times 255."""
    write_images(tmp_path, [Made("a.png", 4, 2, [])])
    run = lambda value, count: [(1, 1), (0, 2), (count - 1, 4), (value, 8)]  # noqa: E731
    rle = _bits((32, 32), (7, 5), (3, 4), (3, 4), (3, 4), (3, 4), *run(0, 16), *run(255, 16))
    value = {"format": "rle", "rle": rle, "brushlabels": ["cat"]}
    region = {"type": "brushlabels", "original_width": 4, "original_height": 2, "value": value}
    tasks = [{"data": {"image": "/data/local-files/?d=x/a.png"}, "annotations": [{"result": [region]}]}]
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    shape = shapes_of(prepared(tmp_path))[0]
    np.testing.assert_array_equal(decode_mask(shape.rle, (2, 4)), [[0, 0, 0, 0], [1, 1, 1, 1]])
    assert shape.box == (0, 1, 4, 2)


def test_boxes_at_the_border_are_counted_as_for_coco(tmp_path: Path) -> None:
    objects = [("cat", 5, 5, 5, 9), ("cat", 200, 5, 210, 9), ("dog", -8, 5, 20, 30), ("dog", 1, 2, 3, 4)]
    images = [Made("a.png", 100, 80, objects)]
    counts = [prepared(make(tmp_path / name, name, images)).tally.counts() for name in ("coco", "voc", "cvat")]
    assert counts[0] == {
        "boxes of zero extent left out": 1,
        "boxes outside the image left out": 1,
        "boxes extending over the image border clipped": 1,
    }
    assert counts[1:] == [counts[0]] * 2


def test_several_images_of_one_name_need_a_choice(tmp_path: Path) -> None:
    make(tmp_path, "cvat")
    for name in ("one", "two"):
        write_images(tmp_path / name)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match=r"several images are called a\.png.*--images"):
        prepared(tmp_path)
