"""One JSON split into training and validation: by seed, equal images on one side, a class's only image in training."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tldet.data.layouts import Split
from tldet.data.splits import split_one
from tldet.errors import DataError


def data(
    folder: Path, classes_of: Sequence[Sequence[int]], names: Sequence[str] = (), same: Sequence[Sequence[int]] = ()
) -> Split:
    """An image for each list of classes; those of a group in ``same`` have the same bytes."""
    folder.mkdir(exist_ok=True)
    names = names or [f"{i:03d}.jpg" for i in range(len(classes_of))]
    content = {i: min(next((group for group in same if i in group), [i])) for i in range(len(names))}
    for i, name in enumerate(names):
        if name != "gone.jpg":
            (folder / name).write_bytes(f"{content[i]:05d}".encode())
    boxes = [(i, k) for i, found in enumerate(classes_of) for k in found]
    count = max([k for _, k in boxes], default=0) + 1
    whole = {
        "images": [{"id": 7 * i, "file_name": name, "width": 9, "height": 9} for i, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": 7 * i, "category_id": k, "bbox": [1, 1, 4, 4]} for n, (i, k) in enumerate(boxes)
        ],
        "categories": [{"id": k, "name": f"c{k}"} for k in range(count)],
    }
    (folder / "all.json").write_text(json.dumps(whole))
    return Split(folder / "all.json", folder)


def val_of(split: Split, out: Path, seed: int = 0) -> set[int]:
    """Positions of the images in the validation split; both splits together are the whole."""
    parts = [json.loads(part.annotations.read_text()) for part in split_one(split, out, seed=seed)]
    train, val = ({image["id"] // 7 for image in part["images"]} for part in parts)
    whole = json.loads(split.annotations.read_text())
    assert not train & val
    assert len(train) + len(val) == len(whole["images"])
    assert sum(len(part["annotations"]) for part in parts) == len(whole["annotations"])
    assert all(a["image_id"] // 7 in val for a in parts[1]["annotations"])
    return val


def test_a_fifth_and_the_same_for_the_same_seed(tmp_path: Path) -> None:
    split = data(tmp_path / "d", [[i % 2] for i in range(40)])
    found = [val_of(split, tmp_path / "out", seed) for seed in range(8)]
    assert {len(one) for one in found} == {8}
    assert all(3 <= len({i for i in one if i % 2}) <= 5 for one in found), "both classes keep their share"
    assert len({frozenset(one) for one in found}) == 8
    assert val_of(split, tmp_path / "again", 3) == found[3]


def test_no_image_always_goes_to_validation(tmp_path: Path) -> None:
    """Those of the lowest and the highest category did."""
    split = data(tmp_path / "d", [[0]] * 3 + [[1]] * 44 + [[2]] * 3)
    drawn = np.zeros(50)
    for seed in range(60):
        drawn[list(val_of(split, tmp_path / "out", seed))] += 1
    assert drawn.min() > 0
    assert drawn.max() < 45


def test_the_only_image_of_a_class_stays_in_training_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    split = data(tmp_path / "d", [[0]] * 20 + [[0, 1], [2], [3], [3]])
    for seed in range(30):
        with caplog.at_level(logging.WARNING):
            val = val_of(split, tmp_path / "out", seed)
        assert not val & {20, 21}
        assert len(val & {22, 23}) == 1, "a class of two images is on both sides"
        assert "not evaluated: c1 (1 image), c2 (1 image)" in caplog.text
        caplog.clear()


def test_equal_images_stay_together(tmp_path: Path) -> None:
    names = [f"{i:03d}.jpg" for i in range(30)]
    names[5] = names[6] = names[7]
    names[20] = f"./{names[21]}"
    names[28] = names[29] = "gone.jpg"
    split = data(tmp_path / "d", [[i % 3] for i in range(30)], names, same=[(0, 15), (1, 2, 3, 4)])
    (tmp_path / "d" / "010.jpg").unlink()
    (tmp_path / "d" / "010.jpg").symlink_to("011.jpg")
    seen = set[int]()
    for seed in range(40):
        val = val_of(split, tmp_path / "out", seed)
        for group in ({5, 6, 7}, {20, 21}, {0, 15}, {1, 2, 3, 4}, {10, 11}, {28, 29}):
            assert len(val & group) in (0, len(group))
            seen |= val & group
    assert len(seen) == 15, "either side"


@pytest.mark.parametrize(
    ("classes_of", "same", "problem"),
    [
        ([[0]], [], "at least 2 images are needed for training and validation, found 1"),
        ([[0]] * 5, [range(5)], "all its images are identical"),
        ([[0], [1], [2]], [], "every image is the only image of some class; use --val"),
    ],
)
def test_datasets_that_cannot_be_split(
    tmp_path: Path, classes_of: list[list[int]], same: Sequence[Sequence[int]], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        split_one(data(tmp_path / "d", classes_of, same=same), tmp_path / "out", seed=0)


def test_groups_larger_than_the_share(tmp_path: Path) -> None:
    split = data(tmp_path / "d", [[0]] * 10, same=[range(6), range(6, 10)])
    assert val_of(split, tmp_path / "out") == {6, 7, 8, 9}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=3, unique=True), min_size=2, max_size=30),
    st.lists(st.integers(0, 9), min_size=30, max_size=30),
    st.integers(0, 5),
)
def test_every_split_keeps_its_rules(
    tmp_path_factory: pytest.TempPathFactory, classes_of: list[list[int]], twins: list[int], seed: int
) -> None:
    same = [group for k in range(5) if (group := [i for i in range(len(classes_of)) if twins[i] == k])]
    folder = tmp_path_factory.mktemp("s")
    split = data(folder / "d", classes_of, same=same)
    try:
        val = val_of(split, folder / "out", seed)
    except DataError as error:
        assert "cannot be split" in str(error)  # noqa: PT017
        return
    train = set(range(len(classes_of))) - val
    assert val
    assert {k for i in train for k in classes_of[i]} == {k for found in classes_of for k in found}
    assert all(len(val & set(group)) in (0, len(group)) for group in same)
