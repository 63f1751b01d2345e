"""Sets of K objects per class: exact, nested, reproducible; and the record of omitted objects."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.coco.partial_labels import LABELED
from tldet.data.index import AnnotationIndex
from tldet.data.shots import write_base, write_shots
from tldet.errors import DataError

CELL, DOG, CAT = 5, 7, 9
OBJECTS = {  # image to the categories of its objects, a negative one a crowd region
    1: [CELL, CELL, CELL, DOG],
    2: [DOG, DOG],
    3: [CAT, -CAT],
    4: [CAT, CELL],
    5: [],
    6: [CAT, CAT, DOG],
    7: [DOG, CELL],
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    images = [{"id": i, "file_name": f"{i}.jpg", "width": 64, "height": 48, "license": 3} for i in OBJECTS]
    pairs = [(image, category) for image, found in OBJECTS.items() for category in found]
    annotations = [
        {"id": 100 + n, "image_id": i, "category_id": abs(c), "iscrowd": int(c < 0), "bbox": [1, 2, 10 + n, 9]}
        for n, (i, c) in enumerate(pairs)
    ]
    categories = [{"id": i, "name": n} for i, n in ((CELL, "cell"), (DOG, "dog"), (CAT, "cat"))]
    path = tmp_path / "all.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories, "info": "x"}))
    return path


def read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())  # type: ignore[no-any-return]


def ids(path: Path) -> set[int]:
    return {a["id"] for a in read(path)["annotations"]}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shots", [1, 2, 4])
def test_exactly_k_of_each_class_and_the_images_that_carry_them(
    source: Path, tmp_path: Path, shots: int, seed: int
) -> None:
    subset = write_shots(source, shots, seed, tmp_path / "k.json")
    index = AnnotationIndex.load(subset.path)
    assert np.bincount(index.labels).tolist() == [shots] * 3
    assert not index.crowd.any()
    assert (np.diff(index.offsets) > 0).all(), "no image without a drawn object"
    whole = read(subset.path)
    assert {a["image_id"] for a in whole["annotations"]} == {i["id"] for i in whole["images"]}
    assert whole["info"] == "x"
    assert all(i["license"] == 3 for i in whole["images"])
    reported = whole["few_shot"]
    assert (reported["source"], reported["shots"], reported["seed"]) == (str(source), shots, seed)
    assert reported["counts"]["dropped_objects"] == subset.dropped_objects
    assert (subset.objects, subset.images) == (3 * shots, len(whole["images"]))
    on_them = sum(len(OBJECTS[i["id"]]) for i in whole["images"])
    assert subset.dropped_objects == on_them - 3 * shots
    assert subset.dropped_images == len(OBJECTS) - subset.images


def test_smaller_sets_lie_within_larger_ones_and_the_seed_decides(source: Path, tmp_path: Path) -> None:
    sets = [ids(write_shots(source, k, 3, tmp_path / f"{k}.json").path) for k in (1, 2, 3, 4)]
    assert all(small < large for small, large in pairwise(sets))
    assert ids(write_shots(source, 2, 3, tmp_path / "again.json").path) == sets[1]
    others = {frozenset(ids(write_shots(source, 2, seed, tmp_path / "o.json").path)) for seed in range(20)}
    assert len(others) > 10


def test_neither_the_order_of_the_file_nor_other_classes_change_the_draw(source: Path, tmp_path: Path) -> None:
    whole = read(source)
    whole["annotations"].reverse()
    whole["images"].reverse()
    whole["categories"] = [c for c in whole["categories"] if c["id"] != CELL]
    whole["annotations"] = [a for a in whole["annotations"] if a["category_id"] != CELL]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(whole))
    first = read(write_shots(source, 2, 1, tmp_path / "a.json").path)["annotations"]
    second = ids(write_shots(other, 2, 1, tmp_path / "b.json").path)
    assert {a["id"] for a in first if a["category_id"] != CELL} == second


@pytest.mark.parametrize("seed", range(4))
def test_an_image_states_which_classes_are_complete_on_it(source: Path, tmp_path: Path, seed: int) -> None:
    whole = read(write_shots(source, 2, seed, tmp_path / "k.json").path)
    kept = Counter((a["image_id"], a["category_id"]) for a in whole["annotations"])
    for image in whole["images"]:
        there = Counter(abs(c) for c in OBJECTS[image["id"]])
        complete = [c for c in (CELL, DOG, CAT) if there[c] == kept[image["id"], c]]
        assert image[LABELED] == complete
    assert any(len(image[LABELED]) < 3 for image in whole["images"])


def test_as_in_the_papers_the_rest_is_background(source: Path, tmp_path: Path) -> None:
    write_shots(source, 2, 0, tmp_path / "k.json")
    stated = AnnotationIndex.load(tmp_path / "k.json").labeled
    assert stated is not None
    assert not stated.all()
    write_shots(source, 2, 0, tmp_path / "k.json", as_background=True)
    assert AnnotationIndex.load(tmp_path / "k.json").labeled is None


def test_labeled_classes_of_the_source_are_kept(source: Path, tmp_path: Path) -> None:
    whole = read(source)
    for image in whole["images"]:
        image[LABELED] = [DOG, CAT]
    source.write_text(json.dumps(whole))
    drawn = read(write_shots(source, 1, 0, tmp_path / "k.json").path)
    assert all(set(image[LABELED]) <= {DOG, CAT} for image in drawn["images"])
    base = read(write_base(source, ["cat"], tmp_path / "b.json").path)
    assert all(image[LABELED] == [DOG] for image in base["images"])


def test_base_data_contain_no_novel_classes(source: Path, tmp_path: Path) -> None:
    subset = write_base(source, ["cat"], tmp_path / "base.json")
    whole = read(subset.path)
    assert [c["name"] for c in whole["categories"]] == ["cell", "dog"]
    assert {a["category_id"] for a in whole["annotations"]} == {CELL, DOG}
    assert [i["id"] for i in whole["images"]] == [1, 2, 4, 5, 6, 7], "3 shows cats only; 5 nothing, and stays"
    assert (subset.objects, subset.dropped_images, subset.dropped_objects) == (10, 1, 3)
    assert all(LABELED not in image for image in whole["images"])
    timed = write_base(source, ["cat"], tmp_path / "val.json", keep_images=True)
    assert (timed.images, timed.objects) == (7, 10)


@pytest.mark.parametrize(
    ("novel", "message"),
    [
        (["bird"], r"all\.json: has no class 'bird'; it has cell, dog, cat"),
        (["cat", "dog", "cell"], "not all of them"),
        ([], "must be some of cell, dog, cat"),
    ],
)
def test_novel_classes_are_some_of_the_data_s(source: Path, tmp_path: Path, novel: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        write_base(source, novel, tmp_path / "base.json")


def test_more_shots_than_objects(source: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"class 'cat' has only 4 objects, fewer than 5 shots"):
        write_shots(source, 5, 0, tmp_path / "k.json")
    whole = read(source)
    whole["categories"].append({"id": 11, "name": "bird"})
    source.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"class 'bird' has no object, fewer than 1 shots"):
        write_shots(source, 1, 0, tmp_path / "k.json")
    assert not (tmp_path / "k.json").exists()


def test_annotations_without_ids_of_their_own(source: Path, tmp_path: Path) -> None:
    whole = read(source)
    for annotation in whole["annotations"]:
        del annotation["id"]
    source.write_text(json.dumps(whole))
    drawn = write_shots(source, 1, 0, tmp_path / "k.json")
    assert (drawn.objects, len(set(ids(drawn.path)))) == (3, 3)


def test_a_set_is_drawn_again_only_after_a_change(source: Path, tmp_path: Path) -> None:
    first = write_shots(source, 2, 0, tmp_path / "k.json")
    stamp = first.path.stat().st_mtime_ns
    assert write_shots(source, 2, 0, first.path) == first
    assert first.path.stat().st_mtime_ns == stamp
    source.write_text(source.read_text().replace('"id": 101', '"id": 99'))
    again = ids(write_shots(source, 4, 0, first.path).path)
    assert 99 in again
    first.path.write_text("{")
    assert write_shots(source, 1, 0, first.path).objects == 3


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"few_shot": 3}', '{"few_shot": {"counts": {"a": 1}}}', "[" * 5000]
)
def test_another_file_at_the_path_of_a_set_is_replaced(source: Path, tmp_path: Path, content: str) -> None:
    expected = write_shots(source, 2, 0, tmp_path / "whole.json")
    (tmp_path / "set.json").write_text(content)
    assert write_shots(source, 2, 0, tmp_path / "set.json").objects == expected.objects
    assert read(tmp_path / "set.json") == read(tmp_path / "whole.json")


def test_a_source_that_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is a folder, not a regular file"):
        write_shots(tmp_path, 2, 0, tmp_path / "set.json")
