"""Subsets lie one in another, keep the classes' shares, and name the class they would lose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.data.subsets import stratified_order, subset_size, write_subset
from tldet.errors import DataError


def coco(classes_of: list[list[int]], count: int, crowd: int = 0) -> dict[str, Any]:
    """An image for each list of classes (ids from 1), with an object of each."""
    annotations = [
        {
            "image_id": 7 * i,
            "category_id": 1 + k,
            "bbox": [1, 2, 8, 9],
            "iscrowd": crowd,
            "segmentation": [],
            "note": "x",
        }
        for i, found in enumerate(classes_of)
        for k in found
    ]
    return {
        "info": {"year": 2020},
        "images": [{"id": 7 * i, "file_name": f"{i}.jpg", "width": 20, "height": 20} for i in range(len(classes_of))],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations)],
        "categories": [{"id": 1 + k, "name": f"class{k}"} for k in range(count)],
    }


def split(folder: Path, content: dict[str, Any]) -> Split:
    path = folder / "all.json"
    path.write_text(json.dumps(content))
    return Split(path, folder)


def usual(images: int = 200) -> list[list[int]]:
    """A common class, one in every third, one in every fortieth image; some images show nothing."""
    return [[k for k, there in enumerate((i % 10 != 9, i % 3 == 0, i % 40 == 5)) if there] for i in range(images)]


def test_subsets_are_nested_and_records_are_unchanged(tmp_path: Path) -> None:
    content = coco(usual(), 3)
    whole, before = split(tmp_path, content), set[int]()
    for fraction in (0.05, 0.1, 0.25, 0.5):
        part = write_subset(whole, fraction, 3, tmp_path / "parts" / f"{fraction}.json")
        found = json.loads(part.annotations.read_text())
        ids = {image["id"] for image in found["images"]}
        assert len(ids) == subset_size(200, fraction)
        assert before < ids
        assert found["annotations"] == [a for a in content["annotations"] if a["image_id"] in ids]
        assert (found["categories"], found["info"]) == (content["categories"], content["info"])
        assert part.images == whole.images
        before = ids
    assert write_subset(whole, 1.0, 3, tmp_path / "none.json") == whole
    assert not (tmp_path / "none.json").exists()


def test_classes_keep_their_shares(tmp_path: Path) -> None:
    index = AnnotationIndex.load(split(tmp_path, coco(usual(), 3)).annotations)
    shown = np.zeros((200, 3))
    for i in range(200):
        shown[i, index.labels[index.rows(i)]] = 1
    totals = shown.sum(0)
    for seed in range(5):
        order = stratified_order(index, seed)
        assert sorted(order) == list(range(200))
        for fraction in (0.1, 0.25, 0.5, 0.75):
            off = np.abs(shown[order[: subset_size(200, fraction)]].sum(0) - fraction * totals)
            assert off.max() <= 2, (seed, fraction, off)


def test_only_the_seed_changes_the_subset(tmp_path: Path) -> None:
    index = AnnotationIndex.load(split(tmp_path, coco(usual(), 3)).annotations)
    assert (stratified_order(index, 4) == stratified_order(index, 4)).all()
    firsts = [frozenset(stratified_order(index, seed)[:20].tolist()) for seed in range(8)]
    assert len(set(firsts)) == 8
    drawn = np.bincount(np.concatenate([stratified_order(index, seed)[:50] for seed in range(200)]), minlength=200)
    assert drawn.min() > 20, "a quarter of the draws, for every image"
    assert drawn[5] > 40
    assert np.median(drawn) == pytest.approx(50, abs=5)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), max_size=4, unique=True), min_size=1, max_size=40), st.integers(0, 9))
def test_every_beginning_that_can_shows_every_class(
    tmp_path_factory: pytest.TempPathFactory, classes_of: list[list[int]], seed: int
) -> None:
    names = sorted({k for found in classes_of for k in found})
    if not names:
        return
    known = [[names.index(k) for k in found] for found in classes_of]
    index = AnnotationIndex.load(split(tmp_path_factory.mktemp("s"), coco(known, len(names))).annotations, cache=False)
    order = stratified_order(index, seed)
    assert sorted(order) == list(range(len(known)))
    assert {k for i in order[: len(names)] for k in known[i]} == set(range(len(names)))


def test_a_class_left_without_an_image_is_named_with_the_least_fraction(tmp_path: Path) -> None:
    rare = [[0]] * 38 + [[1], [2]]
    whole = split(tmp_path, coco(rare, 3))
    with pytest.raises(
        DataError, match=r"all.json: 2 of 40 images .fraction 0.05. contain no object of class 'class0'; .* 0.075"
    ):
        write_subset(whole, 0.05, 0, tmp_path / "part.json")
    assert not (tmp_path / "part.json").exists()
    write_subset(whole, 0.075, 0, tmp_path / "part.json")


@pytest.mark.parametrize(("classes_of", "crowd"), [([[0]] * 4, 0), ([[0, 1]] * 4, 1)])
def test_an_empty_class_is_named(tmp_path: Path, classes_of: list[list[int]], crowd: int) -> None:
    """Crowd regions do not count as objects of a class."""
    whole = split(tmp_path, coco(classes_of, 2, crowd))
    name = "'class0', 'class1'" if crowd else "'class1'"
    with pytest.raises(DataError, match=f"class {name} has no object in any image; remove it"):
        write_subset(whole, 0.5, 0, tmp_path / "part.json")


def test_no_fraction(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most 1"):
        write_subset(split(tmp_path, coco([[0]], 1)), 1.5, 0, tmp_path / "part.json")
