"""The folders people have are recognised."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tldet.data.digits import generate, generate_crops
from tldet.data.images import read_image
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split, find_layout, split_one
from tldet.errors import DataError


def write(path: Path, name: str, pictures: Path, count: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": f"{name}{i}.jpg", "width": 8, "height": 8} for i in range(count)]
    for image in images:
        (pictures / str(image["file_name"])).write_bytes(b"x")
    boxes = [{"id": i, "image_id": i, "category_id": i % 2, "bbox": [0, 0, 4, 4], "area": 16} for i in range(count)]
    categories = [{"id": i, "name": f"c{i}"} for i in range(2)]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": categories}))


def test_coco(tmp_path: Path) -> None:
    for part in ("train2017", "val2017"):
        write(tmp_path / "annotations" / f"instances_{part}.json", part, tmp_path / part)
        (tmp_path / "annotations" / f"captions_{part}.json").write_text('{"images": [], "annotations": []}')
    layout = find_layout(tmp_path)
    assert layout.train == Split(tmp_path / "annotations" / "instances_train2017.json", tmp_path / "train2017")
    assert layout.val == Split(tmp_path / "annotations" / "instances_val2017.json", tmp_path / "val2017")
    assert layout.test is None


def test_roboflow(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        write(tmp_path / part / "_annotations.coco.json", part, tmp_path / part)
    layout = find_layout(tmp_path)
    found = [layout.train, layout.val, layout.test]
    assert [s.images for s in found if s] == [tmp_path / part for part in ("train", "valid", "test")]


def test_files_beside_one_images_folder(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / f"{part}.json", part, tmp_path / "images")
    layout = find_layout(tmp_path)
    assert layout.train.images == tmp_path / "images"
    assert layout.val == Split(tmp_path / "val.json", tmp_path / "images")


def test_bccd(shared: Path) -> None:
    folder = shared / "data" / "bccd"
    layout = find_layout(folder)
    assert layout.train == Split(folder / "coco" / "train.json", folder / "JPEGImages")
    assert layout.val == Split(folder / "coco" / "val.json", folder / "JPEGImages")
    assert layout.test == Split(folder / "coco" / "test.json", folder / "JPEGImages")


def test_one_json_alone(tmp_path: Path) -> None:
    write(tmp_path / "labels.json", "a", tmp_path / "pictures", count=40)
    layout = find_layout(tmp_path)
    assert layout.val is None
    parts = split_one(layout.train, tmp_path / "out", seed=0)
    train, val = (AnnotationIndex.load(part.annotations) for part in parts)
    assert (len(train), len(val)) == (32, 8)
    assert not set(train.image_ids) & set(val.image_ids)
    assert len(set(val.labels.tolist())) == 2
    again = split_one(layout.train, tmp_path / "again", seed=0)
    assert [p.annotations.read_text() for p in again] == [p.annotations.read_text() for p in parts]


def test_a_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    write(tmp_path / "labels.json", "a", tmp_path / "pictures")
    content = (tmp_path / "labels.json").read_bytes()
    (tmp_path / "labels.json").write_bytes(b"\xef\xbb\xbf" + content)
    assert find_layout(tmp_path).train == Split(tmp_path / "labels.json", tmp_path / "pictures")


def test_what_cannot_be_told(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / f"{name}.json", name, tmp_path)
    with pytest.raises(DataError, match=r"cannot tell .*first.json, second.json.* give --train"):
        find_layout(tmp_path)
    (tmp_path / "first.json").unlink()
    (tmp_path / "second0.jpg").unlink()
    for picture in tmp_path.glob("*.jpg"):
        picture.unlink()
    with pytest.raises(DataError, match="give --images"):
        find_layout(tmp_path)


def test_generated_digits_are_the_same_each_time_and_fit_their_masks(tmp_path: Path) -> None:
    from tldet.data.coco import decode_mask

    first, second = (generate(tmp_path / n, train=3, valid=1, test=1, size=(96, 128)) for n in ("a", "b"))
    for path in sorted(first.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    index = AnnotationIndex.load(first / "train" / "_annotations.coco.json")
    assert index.class_names == tuple("0123456789")
    for row in range(len(index.labels)):
        mask = decode_mask(index.segmentation(row), (96, 128))
        ys, xs = np.nonzero(mask)
        x0, y0, x1, y1 = index.boxes[row].tolist()
        assert [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] == pytest.approx([x0, y0, x1, y1], abs=1)
    assert read_image(first / "train" / index.file_names[0]).shape == (96, 128, 3)


def test_test_pictures_show_other_digits_on_other_photographs() -> None:
    from tldet.data.digits import PHOTOS, SHARES

    photos = [set(names) for names in PHOTOS.values()]
    assert not photos[0] & photos[1] | photos[0] & photos[2] | photos[1] & photos[2]
    assert SHARES["train"][1] <= SHARES["valid"][0] <= SHARES["valid"][1] <= SHARES["test"][0]


def test_crops_to_pretrain_on_show_the_training_side_only(tmp_path: Path) -> None:
    from tldet.data.digits import PHOTOS, SHARES

    crops = [f"crops/{part}" for part in ("train", "val")]
    for name in crops:
        assert set(PHOTOS[name]) <= set(PHOTOS["train"])
        assert SHARES["train"][0] <= SHARES[name][0] < SHARES[name][1] <= SHARES["train"][1]
    assert not set(PHOTOS[crops[0]]) & set(PHOTOS[crops[1]])
    assert SHARES[crops[0]][1] <= SHARES[crops[1]][0]
    first, second = (generate_crops(tmp_path / n, train=12, val=4, side=32) for n in ("a", "b"))
    files = [path.relative_to(first) for path in sorted(first.rglob("*.jpg"))]
    assert [sum(part in path.parts for path in files) for part in ("train", "val")] == [12, 4]
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)
    assert read_image(first / files[0]).shape == (32, 32, 3)


def test_a_folder_that_was_not_generated_is_spared(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine.jpg").write_bytes(b"x")
    with pytest.raises(DataError, match="was not generated here"):
        generate(tmp_path, train=1, valid=1, test=1, size=(64, 96))
    with pytest.raises(DataError, match="was not generated here"):
        generate_crops(tmp_path, train=1, val=1)
    assert (tmp_path / "train" / "mine.jpg").exists()
