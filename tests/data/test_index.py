"""AnnotationIndex: every way a COCO JSON can be wrong, and what right ones become."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldet.coco import document
from tldet.data.index import AnnotationIndex
from tldet.data.segmentations import without_degenerate
from tldet.errors import DataError
from tldet.evaluation.loading import load_ground_truth

ARRAYS = (
    *("image_ids", "sizes", "offsets", "boxes", "labels", "crowd", "annotation_ids", "areas"),
    *("file_rows", "spans", "raw"),
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path / "cache"))


def coco(**changes: Any) -> dict[str, Any]:
    data = {
        "images": [{"id": 9, "file_name": "a.jpg", "width": 100, "height": 50}],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": [{"id": 5, "image_id": 9, "category_id": 7, "bbox": [10, 5, 20, 10], "area": 150, "iscrowd": 0}],
    }
    return {**data, **changes}


def annotation(**changes: Any) -> dict[str, Any]:
    return {"id": 5, "image_id": 9, "category_id": 7, "bbox": [10, 5, 20, 10], **changes}


def write(folder: Path, content: dict[str, Any] | str) -> Path:
    path = folder / "some.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


DEEP = "[" * 100_000 + "]" * 100_000
BAD = [
    ("", "is empty"),
    ("   \n", "is empty"),
    (json.dumps(coco())[:-40], "is cut off at line 1"),
    ("[1, 2]", "COCO's layout"),
    (coco(images=[]), "has no images"),
    (coco(categories=[]), "has no categories"),
    (coco(annotations=[annotation(category_id=99)]), "annotation id 5 has unknown category_id 99: the ids are 7"),
    (
        coco(annotations=[annotation(image_id=1)]),
        "annotation id 5 has unknown image_id 1: there is no such id among 1 image",
    ),
    (coco(annotations=[annotation(bbox=[1, 2, -3, 4])]), "annotation id 5 has bbox"),
    (coco(annotations=[annotation(bbox=[1, 2, float("nan"), 4])]), "annotation id 5 has bbox"),
    (coco(annotations=[annotation(bbox=[1, 2, float("inf"), 4])]), "annotation id 5 has bbox"),
    (
        coco(annotations=[annotation(bbox=[1, 2, 3])]),
        "annotation id 5 has bbox [1.0, 2.0, 3.0]; it must be four",
    ),
    (
        coco(annotations=[{"id": 5, "image_id": 9, "category_id": 7}]),
        "id 5 has no bbox, and no segmentation",
    ),
    (
        coco(annotations=[annotation(image_id="9")]),
        "annotation id 5: 'image_id' must be a whole number, not the text '9'",
    ),
    (coco(images=[{"id": 9, "file_name": "a.jpg", "width": 0, "height": 50}]), "image 9 (a.jpg) has size 0 x 50"),
    (coco(images=coco()["images"] * 2), "image id 9 occurs more than once"),
    (
        coco(annotations=[annotation(image_id=2**70)]),
        "annotation id 5: 'image_id' must be a whole number <= 9223372036854775807",
    ),
    (
        coco(images=[{"id": 2**63, "file_name": "a.jpg", "width": 100, "height": 50}]),
        "'id' must be a whole number <= 9223372036854775807",
    ),
    (
        coco(images=[{"id": 9, "file_name": "a.jpg", "width": 2**31, "height": 50}]),
        "image id 9: 'width' must be a whole number <= 2147483647",
    ),
    (coco(categories=[{"id": 2**64, "name": "cat"}]), "'id' must be a whole number <= 9223372036854775807"),
    (coco(annotations=None), "'annotations' must be a list, not null"),
    (
        coco(images=[{**coco()["images"][0], "labeled_category_ids": [7, 8]}]),
        "image 9 (a.jpg) has unknown category id 8 in labeled_category_ids; known ids: 3, 7",
    ),
    (
        coco(images=[{**coco()["images"][0], "labeled_category_ids": ["cat"]}]),
        "image id 9: 'labeled_category_ids' must be a list of category ids, not [\"cat\"]",
    ),
    (
        coco(images=[{**coco()["images"][0], "labeled_category_ids": 7}]),
        "'labeled_category_ids' must be a list of category ids, not 7",
    ),
    (json.dumps(coco(annotations=None))[:-1] + ', "info": NaN}', "'annotations' must be a list, not null"),
    (json.dumps(coco(annotations=[5]))[:-1] + ', "info": NaN}', "annotation 0 (counted from 0) must be an object"),
    (coco(annotations=[annotation(), annotation(id=8, image_id=9.5)]), "annotation id 8: 'image_id' must be a whole"),
    (coco(annotations=[annotation(iscrowd="0")]), "annotation id 5: 'iscrowd' must be a whole number, not the text"),
    (coco(annotations=[{"id": 5, "image_id": 9, "bbox": [1, 2, 3, 4]}]), "annotation id 5 has no 'category_id'"),
    (coco(annotations=[annotation(bbox=[1e300, 0, 1e300, 5])]), "annotation id 5 has bbox [1e+300, 0.0, 1e+300, 5.0]"),
    (coco(annotations=[annotation(bbox=[1e308, 0, 1e308, 5])]), "corners must be finite"),
    (coco(categories=[{"id": -1, "name": "cat"}], annotations=[]), "category id -1 (cat) is negative"),
    pytest.param(json.dumps(coco())[:-1] + f', "info": {DEEP}}}', "is nested too deeply", id="deep"),
    pytest.param('{"info": ' + "[" * 100_000 + "NaN", "is nested too deeply", id="deep with NaN"),
    pytest.param("[" * 100_000 + "NaN", "is nested too deeply", id="nothing but deep"),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("content", "expected"), BAD)
def test_bad_files_are_named_in_one_line(tmp_path: Path, content: Any, expected: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(DataError) as raised:
        AnnotationIndex.load(path)
    text = str(raised.value)
    assert text.startswith(str(path))
    assert expected in text
    assert "\n" not in text


def test_the_index_reads_every_file_that_evaluation_reads(tmp_path: Path) -> None:
    flags = [False, True, None, 1.0, 0, 1]
    boxes = [annotation(id=float(i), image_id=9.0, category_id=7.0, iscrowd=flag) for i, flag in enumerate(flags)]
    image = {"id": 9.0, "file_name": "a.jpg", "width": 100.0, "height": 50.0, "labeled_category_ids": [7.0]}
    categories = [{"id": 7.0, "name": "cat"}, {"id": 3, "name": "dog"}]
    segmentation = [[1, 1, 5, 1, 5, 4]]
    boxes[1]["segmentation"] = segmentation
    path = write(tmp_path, coco(images=[image], categories=categories, annotations=boxes))
    index = AnnotationIndex.load(path)
    assert index.crowd.tolist() == [False, True, False, True, False, True]
    assert index.annotation_ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert (index.image_ids.tolist(), index.sizes.tolist(), index.category_ids) == ([9], [[50, 100]], (3, 7))
    assert index.labeled is not None
    assert index.labeled.tolist() == [[False, True]]
    assert (index.segmentation(0), index.segmentation(1)) == (None, segmentation)
    truth = load_ground_truth(path, "bbox")
    assert truth.crowd.tolist() == index.crowd.tolist()
    assert truth.image_ids == index.image_ids.tolist()


ODD = 107
MANY = 300  # annotations, in blocks of about 20


def many(**odd: Any) -> dict[str, Any]:
    """Annotations of two images by turns, one of them, far back, with other fields."""
    images = [{"id": id, "file_name": f"{id}.jpg", "width": 100, "height": 50} for id in (9, 4)]
    changing = [{"category_id": (7, 3, 3)[n % 3], "bbox": [n % 50, 1, 9, n % 11 + 1]} for n in range(MANY)]
    changing = [{**one, "iscrowd": int(n % 7 == 0), "area": n + 0.5} for n, one in enumerate(changing)]
    outlines = [{"image_id": (9, 4)[n % 2], "segmentation": [[n, 1, 5, 1, 5, 4]]} for n in range(MANY)]
    entries = [annotation(id=n, **changing[n], **outlines[n]) for n in range(MANY)]
    entries[ODD].update(odd)
    return coco(images=images, annotations=entries)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "BLOCK_BYTES", 3000)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("odd", [{}, {"image_id": 4.0}, {"area": float("nan")}])
def test_more_than_a_block_of_annotations(tmp_path: Path, odd: dict[str, Any]) -> None:
    index = AnnotationIndex.load(write(tmp_path, many(**odd)))
    assert index.annotation_ids.tolist() == [*range(0, MANY, 2), *range(1, MANY, 2)]
    assert index.offsets.tolist() == [0, MANY // 2, MANY]
    for row, n in enumerate(index.annotation_ids.tolist()):
        assert index.segmentation(row) == [[n, 1, 5, 1, 5, 4]]
        assert index.boxes[row].tolist() == [n % 50, 1, n % 50 + 9, n % 11 + 2]
        assert (index.labels[row], index.crowd[row]) == ((1, 0, 0)[n % 3], n % 7 == 0)
        assert index.areas[row] == (9 * (n % 11 + 1) if n == ODD and "area" in odd else n + 0.5)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({"image_id": 5}, "has unknown image_id 5"),
        ({"category_id": 8}, "has unknown category_id 8"),
        ({"bbox": [1, 2, 3]}, "it must be four numbers"),
        ({"area": "big"}, "'area' must be a number"),
    ],
)
def test_errors_at_the_end_of_a_large_file_are_found(tmp_path: Path, odd: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError, match=f"annotation (id )?{ODD}.*{expected}"):
        AnnotationIndex.load(write(tmp_path, many(**odd)))


def test_both_readers_give_the_same_message(tmp_path: Path) -> None:
    for wrong in ({"image_id": "9"}, {"bbox": "1 2 3 4"}, {"area": "big"}):
        path = write(tmp_path, coco(annotations=[annotation(id=8, **wrong)]))
        message = []
        for reader in (AnnotationIndex.load, lambda path: load_ground_truth(path, "bbox")):
            with pytest.raises(DataError) as raised:
                reader(path)
            message.append(str(raised.value).replace("a whole number", "a number"))
        assert message[0] == message[1]
        assert message[0].startswith(f"{path}: annotation id 8: ")


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nothing\.json: no such file"):
        AnnotationIndex.load(tmp_path / "nothing.json")


def test_dropped_annotations_are_counted_and_named(tmp_path: Path) -> None:
    boxes = [[10, 5, 20, 10], [1, 1, 0, 5], [1, 1, 5, 0], [90, 40, 30, 30], [200, 200, 5, 5]]
    annotations = [annotation(id=i, bbox=box, iscrowd=0) for i, box in enumerate(boxes)]
    index = AnnotationIndex.load(write(tmp_path, coco(annotations=annotations)))
    assert index.annotation_ids.tolist() == [0, 3]
    assert index.boxes.tolist() == [[10, 5, 30, 15], [90, 40, 100, 50]]
    assert index.notes == (
        "2 boxes of zero extent left out (annotation 1, 2)",
        "1 box outside the image left out (annotation 4)",
        "1 box extending over the image border clipped (annotation 3)",
    )


def test_labels_follow_rising_category_ids(tmp_path: Path) -> None:
    index = AnnotationIndex.load(write(tmp_path, coco()))
    assert index.class_names == ("dog", "cat")
    assert index.category_ids == (3, 7)
    assert index.labels.tolist() == [1]


def test_labels_can_follow_a_model_s_classes(tmp_path: Path) -> None:
    path = write(tmp_path, coco())
    index = AnnotationIndex.load(path, ["bird", "cat"])
    assert index.labels.tolist() == [1]
    assert index.category_ids == (-1, 7)
    with pytest.raises(DataError, match=r"annotations and model share no class .annotations: dog, cat; model: bird"):
        AnnotationIndex.load(path, ["bird"])


def test_classes_that_differ_in_case_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, coco())
    with pytest.raises(DataError, match=r"model: CAT \); 'cat' and 'CAT ' must be spelled alike"):
        AnnotationIndex.load(path, ["CAT "])
    (*_, note) = AnnotationIndex.load(path, ["Cat", "dog"]).notes
    assert note.endswith("(cat); 'cat' and 'Cat' must be spelled alike")
    assert "spelled" not in AnnotationIndex.load(path, ["catfish", "dog"]).notes[-1]


def test_another_class_order_copies_labels_only(tmp_path: Path) -> None:
    path = write(tmp_path, coco(annotations=[annotation(id=i, category_id=3 + 4 * (i % 2)) for i in range(4)]))
    index = AnnotationIndex.load(path)
    other = index.for_classes(["cat", "bird", "dog"])
    assert other.labels.tolist() == [2, 0, 2, 0]
    assert other.boxes is index.boxes
    assert other.raw is index.raw


def partly(*stated: list[int] | None) -> dict[str, Any]:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 100, "height": 50} for i in range(len(stated))]
    keys = [{} if ids is None else {"labeled_category_ids": ids} for ids in stated]
    whole = [{**image, **key} for image, key in zip(images, keys, strict=True)]
    return coco(images=whole, annotations=[annotation(image_id=0)])


@pytest.mark.parametrize("cache", [True, False])
def test_labeled_classes_of_images(tmp_path: Path, cache: bool) -> None:
    path = write(tmp_path, partly([7], None, [], [3, 7, 3]))
    for _ in range(2):  # the second time from the cache
        index = AnnotationIndex.load(path, cache=cache)
        assert index.labeled is not None
        assert index.labeled.tolist() == [[False, True], [True, True], [False, False], [True, True]]
    assert isinstance(index.labeled.base, np.memmap) == cache
    again = pickle.loads(pickle.dumps(index))
    assert (again.labeled == index.labeled).all()


@pytest.mark.parametrize("stated", [[None, None], [[3, 7], None], [[7, 3], [3, 7]]])
def test_images_labeled_for_all_cost_no_memory(tmp_path: Path, stated: list[list[int] | None]) -> None:
    index = AnnotationIndex.load(write(tmp_path, partly(*stated)))
    assert index.labeled is None
    assert index.for_classes(["cat", "dog"]).labeled is None
    assert not list((tmp_path / "cache").glob("**/labeled.npy"))


def test_a_class_that_the_json_lacks_was_not_labeled(tmp_path: Path) -> None:
    classes = ["bird", "cat", "dog"]
    some = AnnotationIndex.load(write(tmp_path, partly([7], None)), classes)
    assert some.labeled is not None
    assert some.labeled.tolist() == [[False, True, False], [False, True, True]]
    none_stated = AnnotationIndex.load(write(tmp_path, partly(None, None, None)), classes)
    assert none_stated.labeled is not None
    assert none_stated.labeled.tolist() == [[False, True, True]] * 3
    assert none_stated.labeled.strides[0] == 0, "one row in memory"


def test_the_cache_serves_until_the_file_changes(tmp_path: Path) -> None:
    path = write(tmp_path, coco())
    first = AnnotationIndex.load(path)
    assert isinstance(first.boxes.base, np.memmap)
    write(tmp_path, coco(annotations=[annotation(id=6, bbox=[0, 0, 1, 1])]))
    assert AnnotationIndex.load(path).annotation_ids.tolist() == [6]


def test_workers_reopen_the_map_instead_of_receiving_copies(tmp_path: Path) -> None:
    many = [annotation(id=i) for i in range(5000)]
    index = AnnotationIndex.load(write(tmp_path, coco(annotations=many)))
    packed = pickle.dumps(index)
    assert len(packed) < 2000
    assert pickle.loads(packed).annotation_ids.tolist() == list(range(5000))


@settings(max_examples=30, deadline=None)
@given(counts=st.lists(st.integers(0, 4), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_offsets_give_each_image_its_own_objects(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], seed: int
) -> None:
    images = [{"id": 10 * i, "file_name": f"{i}", "width": 50, "height": 50} for i in range(len(counts))]
    owners = [10 * i for i, count in enumerate(counts) for _ in range(count)]
    np.random.default_rng(seed).shuffle(owners)
    annotations = [annotation(id=i, image_id=owner, bbox=[1, 1, 2, 2]) for i, owner in enumerate(owners)]
    path = write(tmp_path_factory.mktemp("x"), coco(images=images, annotations=annotations))
    index = AnnotationIndex.load(path, cache=False)
    for i, count in enumerate(counts):
        mine = index.annotation_ids[index.rows(i)].tolist()
        assert len(mine) == count
        assert mine == [n for n, owner in enumerate(owners) if owner == 10 * i]


def test_coco_mini_equals_pycocotools(shared: Path) -> None:
    from pycocotools.coco import COCO

    from tldet.data.masks import decode_mask

    path = shared / "data/coco_mini/annotations/instances_val2017.json"
    index, reference = AnnotationIndex.load(path), COCO(str(path))
    assert len(index) == 130
    assert len(index.class_names) == 80
    assert index.crowd.sum() == 16
    for position, image_id in enumerate(index.image_ids.tolist()):
        rows = index.rows(position)
        for row in range(rows.start, rows.stop):
            record = reference.anns[int(index.annotation_ids[row])]
            x, y, w, h = record["bbox"]
            assert record["image_id"] == image_id
            assert index.boxes[row] == pytest.approx([x, y, x + w, y + h], abs=0.51)
            assert index.category_ids[index.labels[row]] == record["category_id"]
            if row % 40 == 0 or record["iscrowd"]:
                mask = decode_mask(index.segmentation(row), tuple(index.sizes[position].tolist()))
                assert (mask == reference.annToMask(record)).all()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labeled.npy", b""),
        ("labeled.npy", None),
        ("boxes.npy", b""),
        ("raw.npy", b"junk"),
        ("labels.npy", None),
        ("values.json", b"[]"),
        ("values.json", b"{"),
    ],
)
def test_a_damaged_cache_is_made_anew(tmp_path: Path, name: str, content: bytes | None) -> None:
    path = write(tmp_path, partly([7], None))
    AnnotationIndex.load(path)
    (victim,) = (tmp_path / "cache" / "index").glob(f"*/{name}")
    if content is None:
        victim.unlink()
    else:
        victim.write_bytes(content)
    repaired = AnnotationIndex.load(path)
    assert isinstance(repaired.boxes.base, np.memmap)
    assert repaired.boxes.tolist() == [[10, 5, 30, 15]]
    assert repaired.labeled is not None
    assert victim.stat().st_size > 4
    folders = list((tmp_path / "cache" / "index").iterdir())
    assert folders == [victim.parent]


def test_changed_files_of_the_cache_are_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path, partly([7], None))
    before = AnnotationIndex.load(path)
    values = {name: np.array(getattr(before, name)).tolist() for name in (*ARRAYS, "labeled")}
    (folder,) = (tmp_path / "cache" / "index").iterdir()
    names = sorted(one.name for one in folder.iterdir())
    assert len(names) == len(ARRAYS) + 4  # labeled, values.json, and the two arrays of file names
    for name in names:
        content = bytearray((folder / name).read_bytes())
        content[-1] ^= 1
        time.sleep(0.01)  # the clock of a file system may be coarse
        (folder / name).write_bytes(content)
        caplog.clear()
        index = AnnotationIndex.load(path)
        assert {key: np.array(getattr(index, key)).tolist() for key in values} == values, name
        assert (index.class_names, index.file_names) == (before.class_names, before.file_names)
        assert [line for line in caplog.messages if "damaged and are rebuilt" in line], name
        caplog.clear()
        AnnotationIndex.load(path)
        assert caplog.messages == []


def test_damage_that_keeps_size_and_time_is_found(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """All of the arrays except for the text of the segmentations, of which the start is checked."""
    path = write(tmp_path, partly([7], None))
    before = AnnotationIndex.load(path)
    values = {name: np.array(getattr(before, name)).tolist() for name in (*ARRAYS, "labeled")}
    (folder,) = (tmp_path / "cache" / "index").iterdir()
    for name in sorted(one.name for one in folder.iterdir()):
        size = (folder / name).stat().st_size
        for position in {*range(0, size, 37), size - 1}:
            content, status = bytearray((folder / name).read_bytes()), (folder / name).stat()
            content[position] ^= 1
            (folder / name).write_bytes(content)
            os.utime(folder / name, ns=(status.st_atime_ns, status.st_mtime_ns))
            caplog.clear()
            index = AnnotationIndex.load(path)
            assert {key: np.array(getattr(index, key)).tolist() for key in values} == values, (name, position)
            assert [line for line in caplog.messages if "damaged and are rebuilt" in line], (name, position)


def test_a_file_instead_of_the_cache_folder(tmp_path: Path) -> None:
    path = write(tmp_path, partly([7], None))
    AnnotationIndex.load(path)
    (folder,) = (tmp_path / "cache" / "index").iterdir()
    shutil.rmtree(folder)
    folder.write_text("junk")
    assert isinstance(AnnotationIndex.load(path).boxes.base, np.memmap)
    assert folder.is_dir()
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize(
    "polygon", ["[0, 0, 1e9, 0, 1e9, 1e9]", "[0, 0, 50000000, 0, 5e7, 5e7]", "[1, 2, 3, 4, 5, 1e999]"]
)
def test_far_polygons_are_found_before_training(tmp_path: Path, polygon: str) -> None:
    whole = json.dumps(coco(annotations=[annotation(segmentation="here")]))
    index = AnnotationIndex.load(write(tmp_path, whole.replace('"here"', f"[{polygon}]")))
    with pytest.raises(DataError, match=r"some\.json: annotation id 5 has a (polygon|segmentation)"):
        without_degenerate(index)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_paths_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("pipe", "loop", "nothing", "x" * 5000, "a\0b", "cache"):
        (tmp_path / "cache").mkdir(exist_ok=True)
        with pytest.raises(DataError, match=r"pipe|symbolic links|no such file|too long|null|folder"):
            AnnotationIndex.load(tmp_path / name)
