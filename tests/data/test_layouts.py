"""The folders people have are recognized."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from tldet.data.digits import generate, generate_crops
from tldet.data.images import read_image
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split, find_layout
from tldet.errors import DataError


def write(path: Path, name: str, folder: Path, count: int = 4) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    images = [{"id": i, "file_name": f"{name}{i}.jpg", "width": 8, "height": 8} for i in range(count)]
    for image in images:
        (folder / str(image["file_name"])).write_bytes(str(image["file_name"]).encode())
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


def test_a_json_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    write(tmp_path / "labels.json", "a", tmp_path / "images")
    content = (tmp_path / "labels.json").read_bytes()
    (tmp_path / "labels.json").write_bytes(b"\xef\xbb\xbf" + content)
    assert find_layout(tmp_path).train == Split(tmp_path / "labels.json", tmp_path / "images")


def test_ambiguous_layouts_are_errors(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write(tmp_path / f"{name}.json", name, tmp_path)
    with pytest.raises(DataError, match=r"cannot tell .*first.json, second.json.* use --train"):
        find_layout(tmp_path)
    (tmp_path / "first.json").unlink()
    for image in tmp_path.glob("*.jpg"):
        image.unlink()
    with pytest.raises(DataError, match="use --images"):
        find_layout(tmp_path)


DAMAGED = {
    "empty": (b"", "is empty"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
    "page": (b"<!doctype html><html>", "HTML page"),
    "cut off": (b'{"images": [{"id": 1, "file_na', "is cut off"),
    "results": (b'[{"image_id": 1}]', "is a list"),
    "captions": (b'{"images": [], "annotations": [{"caption": "x"}], "categories": []}', "neither bbox"),
}


@pytest.mark.parametrize("name", ["train.json", "train/_annotations.coco.json", "annotations/captions_train.json"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_another_split_never_replaces_an_unusable_file(tmp_path: Path, name: str, kind: str) -> None:
    """The validation annotations were trained on."""
    content, problem = DAMAGED[kind]
    write(tmp_path / "val.json", "val", tmp_path / "images")
    write(tmp_path / name, "train", tmp_path / "images")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: .*{problem}.*remove it"):
        find_layout(tmp_path)
    (tmp_path / name).rename(tmp_path / "validation.json")
    (tmp_path / "val.json").rename(tmp_path / "train.json")
    with pytest.raises(DataError, match=f"validation.json: .*{problem}"):
        find_layout(tmp_path)


@pytest.mark.parametrize("name", ["val.json", "test.json", "valid/_annotations.coco.json", "instances_val2017.json"])
def test_a_validation_or_test_json_alone_is_not_trained_on(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "a", tmp_path / "images")
    with pytest.raises(DataError, match=f"no training annotations, only {name}"):
        find_layout(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_encodings_of_a_training_json(tmp_path: Path, encoding: str) -> None:
    for part in ("train", "val"):
        write(tmp_path / f"{part}.json", part, tmp_path / "images")
    text = (tmp_path / "train.json").read_text()
    (tmp_path / "train.json").write_bytes(text.encode(encoding))
    layout = find_layout(tmp_path)
    assert layout.train == Split(tmp_path / "train.json", tmp_path / "images")
    assert len(AnnotationIndex.load(layout.train.annotations)) == 4


def test_a_training_json_whose_keys_come_late(tmp_path: Path) -> None:
    """The validation JSON was trained on if 70 kB of licenses came first."""
    for part in ("train", "val"):
        write(tmp_path / f"{part}.json", part, tmp_path / "images")
    licenses = [{"id": i, "name": "Attribution", "url": "http://example.org/licenses/by"} for i in range(1200)]
    whole = {"licenses": licenses, **json.loads((tmp_path / "train.json").read_text())}
    (tmp_path / "train.json").write_text(json.dumps(whole))
    assert (tmp_path / "train.json").read_bytes().index(b'"images"') > 70_000
    assert find_layout(tmp_path).train == Split(tmp_path / "train.json", tmp_path / "images")


@pytest.mark.parametrize("name", ["person_keypoints_train.json", "stuff_train.json", "captions_train.json"])
def test_content_decides_and_not_the_name(tmp_path: Path, name: str) -> None:
    write(tmp_path / "annotations" / name, "train", tmp_path / "images")
    write(tmp_path / "annotations" / "instances_val.json", "val", tmp_path / "images")
    assert find_layout(tmp_path).train.annotations.name == name


def test_foodstuff(tmp_path: Path) -> None:
    write(tmp_path / "foodstuff.json", "a", tmp_path / "images")
    assert find_layout(tmp_path).train.annotations.name == "foodstuff.json"


def test_the_other_files_of_coco_are_passed_over(tmp_path: Path) -> None:
    folder = tmp_path / "annotations"
    for part in ("train2017", "val2017"):
        for kind in ("instances", "person_keypoints", "stuff"):
            write(folder / f"{kind}_{part}.json", part, tmp_path / part)
        for kind in ("captions", "panoptic"):
            (folder / f"{kind}_{part}.json").write_text('{"images": [], "annotations": []}')
    for part in ("test2017", "test-dev2017"):
        (folder / f"image_info_{part}.json").write_text('{"images": [], "categories": []}')
    layout = find_layout(tmp_path)
    assert layout.train.annotations.name == "instances_train2017.json"
    assert layout.val == Split(folder / "instances_val2017.json", tmp_path / "val2017")
    assert layout.test is None


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (("old_train.json", "train.json", "val.json"), "old_train.json, train.json; choose one with --train"),
        (("instances_train2014.json", "instances_train2017.json"), "2014.json, instances_train2017.json; choose one"),
        (("train/part1.json", "train/part2.json"), "train/part1.json, train/part2.json; choose one with --train"),
        (("train.json", "old/train.json"), "train.json, old/train.json; choose one with --train"),
        (("train.json", "val.json", "dev.json"), "dev.json, val.json; choose one with --val"),
        (("train.json", "val.json", "test.json", "test2.json"), "test.json, test2.json; leave one of them"),
        (("part1.json", "part2.json"), "cannot tell which JSON to train on .part1.json, part2.json"),
        (("train.json", "more.json"), "cannot tell which split more.json belongs to"),
        (("labels.json", "val.json"), "cannot tell which JSON to train on .labels.json, val.json"),
    ],
)
def test_several_files_for_one_split_are_listed(tmp_path: Path, names: tuple[str, ...], listed: str) -> None:
    for name in names:
        write(tmp_path / name, "a", tmp_path / "images")
    with pytest.raises(DataError, match=listed):
        find_layout(tmp_path)


def test_hidden_copies_are_skipped_and_a_link_is_no_second_file(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / f"{part}.json", part, tmp_path / "images")
    content = (tmp_path / "train.json").read_bytes()
    for name in (".ipynb_checkpoints/train-checkpoint.json", ".git/train.json", "__MACOSX/train.json", "._train.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "train.json").symlink_to(tmp_path / "train.json")
    assert find_layout(tmp_path).train == Split(tmp_path / "train.json", tmp_path / "images")


@pytest.mark.parametrize("name", ["validate.json", "testA.json", "instances_minival2014.json", "val/labels/coco.json"])
def test_further_names_of_splits_that_are_not_trained_on(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, "a", tmp_path / "images")
    with pytest.raises(DataError, match=f"no training annotations, only {name}"):
        find_layout(tmp_path)


def test_deeper_folders(tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / part / "annotations" / "coco.json", part, tmp_path / part / "images")
    layout = find_layout(tmp_path)
    assert layout.train == Split(tmp_path / "train/annotations/coco.json", tmp_path / "train/images")
    assert layout.val == Split(tmp_path / "val/annotations/coco.json", tmp_path / "val/images")
    (tmp_path / "run" / "split").mkdir(parents=True)
    (tmp_path / "run" / "config.py").write_text("")
    (tmp_path / "run" / "split" / "train.json").write_bytes(layout.train.annotations.read_bytes())
    assert find_layout(tmp_path) == layout, "the split of an earlier run is no data"


def test_a_packed_training_json_is_not_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "labels.json", "a", tmp_path / "images")
    packed = gzip.compress((tmp_path / "labels.json").read_bytes())
    (tmp_path / "train.json.gz").write_bytes(packed)
    with pytest.raises(DataError, match=r"train\.json\.gz: is gzip-compressed; unpack it"):
        find_layout(tmp_path)
    (tmp_path / "labels.json").rename(tmp_path / "train.json")
    assert find_layout(tmp_path).train.annotations == tmp_path / "train.json", "unpacked beside it"


def test_names_of_a_linked_file(tmp_path: Path) -> None:
    write(tmp_path / "train.json", "a", tmp_path / "images")
    write(tmp_path / "val.json", "b", tmp_path / "images")
    (tmp_path / "latest.json").symlink_to(tmp_path / "train.json")
    assert find_layout(tmp_path).train.annotations == tmp_path / "train.json"
    (tmp_path / "val.json").unlink()
    (tmp_path / "val.json").symlink_to(tmp_path / "train.json")
    with pytest.raises(DataError, match=r"one file is linked as several splits: .*train\.json \(train\), .*val\.json"):
        find_layout(tmp_path)


def test_dev_is_validation(tmp_path: Path) -> None:
    for part in ("train", "dev"):
        write(tmp_path / f"{part}.json", part, tmp_path / "images")
    layout = find_layout(tmp_path)
    assert layout.val is not None
    assert layout.val.annotations.name == "dev.json"


def test_generated_digits_are_the_same_each_time_and_fit_their_masks(tmp_path: Path) -> None:
    from tldet.data.masks import decode_mask

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


def test_test_images_show_other_digits_on_other_photographs() -> None:
    from tldet.data.digit_scenes import PHOTOS, SPLIT_SHARES

    photos = [set(names) for names in PHOTOS.values()]
    assert not photos[0] & photos[1] | photos[0] & photos[2] | photos[1] & photos[2]
    assert SPLIT_SHARES["train"][1] <= SPLIT_SHARES["valid"][0] <= SPLIT_SHARES["valid"][1] <= SPLIT_SHARES["test"][0]


def test_crops_to_pretrain_on_show_the_training_side_only(tmp_path: Path) -> None:
    from tldet.data.digit_scenes import PHOTOS, SPLIT_SHARES

    crops = [f"crops/{part}" for part in ("train", "val")]
    for name in crops:
        assert set(PHOTOS[name]) <= set(PHOTOS["train"])
        assert SPLIT_SHARES["train"][0] <= SPLIT_SHARES[name][0] < SPLIT_SHARES[name][1] <= SPLIT_SHARES["train"][1]
    assert not set(PHOTOS[crops[0]]) & set(PHOTOS[crops[1]])
    assert SPLIT_SHARES[crops[0]][1] <= SPLIT_SHARES[crops[1]][0]
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
