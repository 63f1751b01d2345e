"""Data of an extended detector: labels of old and new images, ids, names; and errors."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tldet.data.dataset import CocoDataset
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import Split
from tldet.errors import ConfigError, DataError, TldetError
from tldet.transfer.class_match import MatchSettings
from tldet.workflows.extend.data import ExtendData, ExtendInput, prepare_data

OLD = {"cat": 1, "dog": 5}


def write(
    folder: Path, name: str, categories: dict[str, int], classes_per_image: list[list[str]], **keys: Any
) -> Split:
    """A JSON and its images, each with one object of the classes named; ``stated``: what it was labeled for."""
    images, objects = [], []
    stated = keys.get("stated", [None] * len(classes_per_image))
    for number, (names, labeled) in enumerate(zip(classes_per_image, stated, strict=True), start=1):
        file = f"{name}_{number}.png"
        pixels = np.random.default_rng([*name.encode(), number]).integers(0, 255, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / keys.get("file", file)), pixels)
        image = {"id": number, "file_name": keys.get("file", file), "width": 32, "height": 24}
        images.append(image if labeled is None else {**image, "labeled_category_ids": labeled})
        for location, one in enumerate(names):
            box = {"bbox": [4 * location, 2, 8, 9], "area": 72, "iscrowd": 0}
            objects.append({"id": len(objects) + 1, "image_id": number, "category_id": categories[one], **box})
    records = [{"id": key, "name": one} for one, key in categories.items()]
    (folder / f"{name}.json").write_text(json.dumps({"images": images, "annotations": objects, "categories": records}))
    return Split(folder / f"{name}.json", folder)


def prepared(out: Path, new: Split, val: Split, match: MatchSettings | None = None, **more: Split) -> ExtendData:
    given = ExtendInput(new, more.get("replay"), val, more.get("old_val"), more.get("own"))
    return prepare_data(given, OLD, match or MatchSettings(), out / "out", iter)


def labeled(split: Split, names: tuple[str, ...]) -> list[list[str]]:
    """Names of the classes that each image was labeled for."""
    index = AnnotationIndex.load(split.annotations, names)
    rows = np.ones((len(index), len(names)), bool) if index.labeled is None else index.labeled
    return [[name for name, there in zip(names, row, strict=True) if there] for row in rows.tolist()]


def test_classes_ids_and_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    new = write(tmp_path, "new", {"owl": 5, "bee": 2, "cat": 7}, [["owl", "bee"], ["owl"]])
    replay = write(tmp_path, "replay", {"cat": 1, "dog": 2, "owl": 9}, [["cat", "dog"]])
    val = write(tmp_path, "val", {"owl": 1, "cat": 2, "dog": 3, "cow": 4}, [["owl", "cat", "dog", "cow"]])
    data = prepared(tmp_path, new, val, replay=replay)
    assert (data.old, data.new, data.images) == (("cat", "dog"), ("bee", "owl"), 3)
    categories = {c["name"]: c["id"] for c in json.loads(data.train.annotations.read_bytes())["categories"]}
    assert {name: categories[name] for name in OLD} == OLD, "old classes keep their ids"
    assert categories["bee"] == 2
    assert categories["owl"] not in (1, 2, 5), "5 is the dog's"
    assert f"category 5 'owl' becomes {categories['owl']} 'owl'" in caplog.text
    names = (*data.old, *data.new)
    assert labeled(data.train, names) == [["bee", "owl"], ["bee", "owl"], ["cat", "dog"]]
    assert "new.json: no object of cat; treated as not annotated in this file" in caplog.text
    assert labeled(data.val, names) == [["cat", "dog", "owl"]]
    index = AnnotationIndex.load(data.train.annotations, names)
    assert index.labels.tolist() == [3, 2, 3, 0, 1]
    assert len(set(index.image_ids.tolist())) == 3
    assert all((data.train.images / name).is_file() for name in index.file_names)


def test_old_classes_in_the_new_data_are_labeled_there(tmp_path: Path) -> None:
    new = write(tmp_path, "new", {"owl": 9, "cat": 3}, [["owl", "cat"], ["owl"], ["owl"]], stated=[None, [9], [3]])
    data = prepared(tmp_path, new, new)
    assert labeled(data.train, (*data.old, *data.new)) == [["cat", "owl"], ["owl"], ["cat"]]


def test_an_image_in_old_and_new_data_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = write(tmp_path, "new", {"owl": 9}, [["owl"]], file="same.png")
    replay = write(tmp_path, "replay", {"dog": 5}, [["dog"]], file="same.png")
    data = prepared(tmp_path, new, new, replay=replay)
    assert data.images == 1
    assert labeled(data.train, (*data.old, *data.new)) == [["dog", "owl"]]
    assert "1 image is both in train.json and in val.json" in caplog.text


def test_validation_data_of_old_classes(tmp_path: Path) -> None:
    new = write(tmp_path, "new", {"owl": 9}, [["owl"]])
    val = write(tmp_path, "val", {"owl": 9}, [["owl"]])
    old_val = write(tmp_path, "old", {"cat": 3}, [["cat"]])
    own = write(tmp_path, "own", OLD, [["cat"], ["dog"]])
    names = ("cat", "dog", "owl")
    assert labeled(prepared(tmp_path, new, val).val, names) == [["owl"]]
    assert labeled(prepared(tmp_path, new, val, old_val=old_val, own=own).val, names) == [["owl"], ["cat"]]
    assert labeled(prepared(tmp_path, new, val, own=own).val, names) == [["owl"], ["cat", "dog"], ["cat", "dog"]]
    whole = write(tmp_path, "whole", {"owl": 9, **OLD}, [["owl", "cat", "dog"]])
    assert labeled(prepared(tmp_path, new, whole, own=own).val, names) == [["cat", "dog", "owl"]]


def test_old_classes_of_other_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = write(tmp_path, "new", {"owl": 9, "Cat": 3, "puppy": 4}, [["owl", "Cat", "puppy"]])
    data = prepared(tmp_path, new, new, MatchSettings({"puppy": "dog"}, ("case",)))
    assert (data.old, data.new) == (("cat", "dog"), ("owl",))
    assert labeled(data.train, (*data.old, *data.new)) == [["cat", "dog", "owl"]]
    data = prepared(tmp_path, new, new)
    assert data.new == ("Cat", "puppy", "owl")
    assert "classes that match old classes only with --fold-names case: Cat" in caplog.text


def test_aliases_apply_to_the_new_data_only(tmp_path: Path) -> None:
    """The old detector's own data keep their names, even one that is an alias in the new data."""
    new = write(tmp_path, "new", {"owl": 9, "puppy": 4}, [["owl", "puppy"]])
    old_val = write(tmp_path, "old", {"cat": 1, "dog": 5, "puppy": 6}, [["cat", "dog", "puppy"]])
    own = write(tmp_path, "own", {"cat": 1, "Dog": 5}, [["cat", "Dog"]])
    match = MatchSettings({"puppy": "dog"}, ("case",))
    data = prepared(tmp_path, new, new, match, old_val=old_val)
    assert (data.old, data.new) == (("cat", "dog"), ("owl",))
    assert counts(data.train) == {"dog": 1, "owl": 1}
    assert counts(data.val) == {"dog": 1 + 1, "owl": 1, "cat": 1, "puppy": 1}
    assert counts(prepared(tmp_path, new, new, match, own=own).val) == {"dog": 1, "owl": 1, "cat": 1, "Dog": 1}
    replay = write(tmp_path, "replay", {"puppy": 5}, [["puppy"]])
    with pytest.raises(DataError, match=r"class 'puppy' of the replay images .* --class-aliases apply to the new data"):
        prepared(tmp_path, new, new, match, replay=replay)


@pytest.mark.parametrize("own", [True, False])
def test_an_alias_for_another_old_class_is_refused(tmp_path: Path, own: bool) -> None:
    new = write(tmp_path, "new", {"owl": 9, "dog": 4}, [["owl", "dog"]])
    old = {"own": write(tmp_path, "own", OLD, [["cat", "dog"]])} if own else {}
    with pytest.raises(ConfigError, match="class alias 'dog' -> 'cat': 'dog' is a class of the checkpoint itself"):
        prepared(tmp_path, new, new, MatchSettings({"dog": "cat"}), **old)
    assert not (tmp_path / "out").exists()
    assert prepared(tmp_path, new, new, MatchSettings({"dog": "dog"}), **old).new == ("owl",)


def counts(split: Split) -> dict[str, int]:
    """Objects of each class of a written JSON."""
    content = json.loads(split.annotations.read_bytes())
    names = {one["id"]: one["name"] for one in content["categories"]}
    return dict(Counter(names[one["category_id"]] for one in content["annotations"]))


def test_a_new_class_without_objects(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    new = write(tmp_path, "new", {"owl": 9, "bee": 3}, [["owl"]])
    data = prepared(tmp_path, new, new)
    assert data.new == ("bee", "owl")
    assert "new classes without objects, which cannot be trained: bee" in caplog.text
    assert labeled(data.train, data.new) == [["owl"]]


def empty_new(folder: Path) -> dict[str, Split]:
    return {"new": write(folder, "new", {"owl": 9, "cat": 1}, [["cat"]])}


def known_only(folder: Path) -> dict[str, Split]:
    return {"new": write(folder, "new", {"cat": 1}, [["cat"]])}


def strange_replay(folder: Path) -> dict[str, Split]:
    return {"replay": write(folder, "replay", {"cat": 1, "cow": 2}, [["cat", "cow"]])}


def missing_image(folder: Path) -> dict[str, Split]:
    new = write(folder, "new", {"owl": 9}, [["owl"]])
    (folder / "new_1.png").unlink()
    return {"new": new}


def test_images_that_are_skipped_may_be_missing(tmp_path: Path) -> None:
    new = write(tmp_path, "new", {"owl": 9}, [["owl"]] * 3)
    (tmp_path / "new_1.png").unlink()
    val = write(tmp_path, "val", {"owl": 9}, [["owl"]])
    data = prepare_data(ExtendInput(new, None, val, None, None), OLD, MatchSettings(), tmp_path / "out", missing=True)
    dataset = CocoDataset(str(data.train.annotations), str(data.train.images), on_bad_image="skip")
    dataset.check_images()
    assert (data.images, len(dataset)) == (3, 2)


@pytest.mark.parametrize(
    ("make", "error"),
    [
        (known_only, "new.json: has no new class (classes of the checkpoint: cat, dog); use `tldet finetune"),
        (empty_new, "new.json: no object of the new classes (owl)"),
        (
            strange_replay,
            "replay.json: class 'cow' of the replay images is neither a class of the checkpoint nor a new class (cat",
        ),
        (missing_image, "1 of 1 image of"),
    ],
)
def test_invalid_inputs_are_named(tmp_path: Path, make: Any, error: str) -> None:
    val = write(tmp_path, "val", {"owl": 9}, [["owl"]])
    given: dict[str, Split] = {"new": val, "val": val, **make(tmp_path)}
    with pytest.raises(TldetError) as caught:
        prepared(tmp_path, **given)
    assert error in str(caught.value)
    assert isinstance(caught.value, DataError)
    assert "\n" not in str(caught.value)
