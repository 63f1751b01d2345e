"""``tldet split``: fractions, groups, folds, and duplicates in the same split."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import pytest

from tests.data.formats.made import make
from tests.workflows.check.broken import photo
from tldet.cli.main import main
from tldet.errors import ConfigError, DataError, OutputError
from tldet.workflows.check.check import check
from tldet.workflows.split.split import split


def scenes(folder: Path, count: int = 24) -> dict[str, Any]:
    """A dataset of ``count`` images of four videos; the class of every sixth image is rare."""
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for number in range(count):
        name = f"video{number % 4}_{number}.jpg"
        photo(number).save(folder / "images" / name)
        images.append(
            {"id": number + 1, "file_name": name, "width": 96, "height": 64, "video": number % 4, "note": "x"}
        )
        category = 2 if number % 6 == 0 else 1
        box = {"bbox": [4, 4, 30, 20], "area": 600, "iscrowd": 0}
        annotations.append({"id": number + 1, "image_id": number + 1, "category_id": category, **box})
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    values = {"info": {"year": 2026}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(values))
    return values


def names_in(path: Path) -> list[str]:
    return [Path(image["file_name"]).name for image in json.loads(path.read_text())["images"]]


def test_each_part_has_its_share_of_each_class(tmp_path: Path) -> None:
    scenes(tmp_path / "data")
    report = split(tmp_path / "data", out=tmp_path / "out", val=0.25, test=0.25)
    assert [(Path(part.file).stem, part.images) for part in report.parts] == [("train", 12), ("val", 6), ("test", 6)]
    assert [part.objects["dog"] for part in report.parts] == [2, 1, 1]
    assert (report.copies, report.leaks) == (0, 0)
    names = [names_in(tmp_path / "out" / f"{name}.json") for name in ("train", "val", "test")]
    assert len(set().union(*names)) == sum(map(len, names)) == 24
    assert check(tmp_path / "out", fast=True).failed is False


def test_records_stay_as_they_are(tmp_path: Path) -> None:
    values = scenes(tmp_path / "data")
    split(tmp_path / "data" / "all.json", out=tmp_path / "out")
    train = json.loads((tmp_path / "out" / "train.json").read_text())
    assert (train["info"], train["categories"]) == (values["info"], values["categories"])
    ids = {image["id"] for image in train["images"]}
    assert train["annotations"] == [one for one in values["annotations"] if one["image_id"] in ids]
    assert all(image["note"] == "x" for image in train["images"])
    assert all((tmp_path / "out" / image["file_name"]).is_file() for image in train["images"])


def test_folds_cover_every_image_once(tmp_path: Path) -> None:
    scenes(tmp_path / "data")
    report = split(tmp_path / "data", out=tmp_path / "out", folds=4)
    held_out = Counter(name for n in range(1, 5) for name in names_in(tmp_path / "out" / f"fold{n}" / "val.json"))
    assert len(held_out) == 24
    assert set(held_out.values()) == {1}
    for number in range(1, 5):
        train, val = (set(names_in(tmp_path / "out" / f"fold{number}" / f"{name}.json")) for name in ("train", "val"))
        assert not train & val
        assert (len(train), len(val)) == (18, 6)
    assert [part.objects["dog"] for part in report.parts if part.file.endswith("val.json")] == [1, 1, 1, 1]


@pytest.mark.parametrize("how", ["field:video", r"name:^video\d", "folder"])
def test_groups_are_not_divided(tmp_path: Path, how: str) -> None:
    values = scenes(tmp_path / "data")
    if how == "folder":
        for image in values["images"]:
            name = f"{image['video']}/{image['file_name']}"
            (tmp_path / "data" / "images" / str(image["video"])).mkdir(exist_ok=True)
            (tmp_path / "data" / "images" / image["file_name"]).rename(tmp_path / "data" / "images" / name)
            image["file_name"] = name
        (tmp_path / "data" / "all.json").write_text(json.dumps(values))
    report = split(tmp_path / "data", out=tmp_path / "out", val=0.25, group_by=how)
    train, val = ({name[:6] for name in names_in(tmp_path / "out" / f"{one}.json")} for one in ("train", "val"))
    assert not train & val
    assert train | val == {"video0", "video1", "video2", "video3"}
    assert report.groups == 4


def test_copies_stay_together(tmp_path: Path) -> None:
    """Mirrored and resized copies of half of the images, under other names."""
    values = scenes(tmp_path / "data", 12)
    folder = tmp_path / "data" / "images"
    for image in values["images"][::2]:
        pixels = cv2.flip(cv2.resize(cv2.imread(str(folder / image["file_name"])), (72, 48)), 1)
        cv2.imwrite(str(folder / f"copy_{image['file_name']}"), pixels)
        copied = {**image, "id": image["id"] + 100, "file_name": f"copy_{image['file_name']}"}
        values["images"] = [*values["images"], {**copied, "width": 72, "height": 48}]
    (tmp_path / "data" / "all.json").write_text(json.dumps(values))
    report = split(tmp_path / "data", out=tmp_path / "out", val=0.4)
    assert (report.copies, report.leaks, report.groups) == (6, 0, 12)
    assert not any(one.code.startswith("leak-") for one in check(tmp_path / "out").findings)


def test_other_formats(tmp_path: Path) -> None:
    split(make(tmp_path / "source", "voc"), out=tmp_path / "out", val=0.34)
    assert sorted(names_in(tmp_path / "out" / "train.json") + names_in(tmp_path / "out" / "val.json")) == [
        "a.png",
        "b.png",
        "c.png",
    ]


def test_seeds(tmp_path: Path) -> None:
    scenes(tmp_path / "data")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        split(tmp_path / "data", out=tmp_path / name, seed=seed)
    first, again, other = ((tmp_path / name / "val.json").read_text() for name in "abc")
    assert first == again != other


def test_bad_input(tmp_path: Path) -> None:
    scenes(tmp_path / "data", 4)
    with pytest.raises(ConfigError, match="cannot be combined"):
        split(tmp_path / "data", out=tmp_path / "out", folds=2, test=0.2)
    with pytest.raises(ConfigError, match="leave no images for training"):
        split(tmp_path / "data", out=tmp_path / "out", val=0.6, test=0.4)
    with pytest.raises(ConfigError, match="--group-by must be"):
        split(tmp_path / "data", out=tmp_path / "out", group_by="patient")
    with pytest.raises(ConfigError, match="no image has this field"):
        split(tmp_path / "data", out=tmp_path / "out", group_by="field:patient")
    with pytest.raises(ConfigError, match="invalid regular expression"):
        split(tmp_path / "data", out=tmp_path / "out", group_by="name:(")
    with pytest.raises(DataError, match="cannot be divided into 9 parts"):
        split(tmp_path / "data", out=tmp_path / "out", folds=9)
    assert not (tmp_path / "out").exists()
    split(tmp_path / "data", out=tmp_path / "out")
    with pytest.raises(OutputError, match="contains an earlier split"):
        split(tmp_path / "data", out=tmp_path / "out")
    assert main(["split", str(tmp_path / "none"), "--out", str(tmp_path / "other")]) == 2
