"""The fast checks before training: warnings about the annotations, none about sound ones."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tests.workflows.check.broken import Values, add, only_dogs_in, put, splits, write
from tldet.data.dataset import CocoDataset
from tldet.workflows.training.data_problems import log_problems


def logged(folder: Path, caplog: pytest.LogCaptureFixture, val: str | None = None) -> list[str]:
    """The warnings about ``instances.json``, or about ``train.json`` and ``val.json``."""
    names = ["instances.json"] if val is None else ["train.json", val]
    datasets = [CocoDataset(str(folder / name), str(folder / "images")) for name in names]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        log_problems(datasets[0], datasets[1] if val else None)
    return [record.getMessage() for record in caplog.records]


def test_sound_annotations(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "data")
    assert logged(tmp_path / "data", caplog) == []


def test_one_line_for_each_kind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def change(values: Values, folder: Path) -> None:
        add("annotations", id=50)(values, folder)
        add("annotations", id=51, image_id=1)(values, folder)
        add("annotations", id=52, image_id=1)(values, folder)
        put("categories", 1, name="Cat")(values, folder)

    path = write(tmp_path / "data", change)
    names, twice = logged(tmp_path / "data", caplog)
    assert names.startswith(f"{path}: similar category names")
    assert twice == (
        f"{path}: object annotated twice: annotation id 52: duplicate of annotation 51 of class 'Cat' "
        "(and 1 more); see tldet check"
    )


def test_images_in_both_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "data")
    (tmp_path / "link").symlink_to(tmp_path / "data" / "images")
    one, other = CocoDataset(str(path), str(path.parent / "images")), CocoDataset(str(path), str(tmp_path / "link"))
    other.positions = other.positions[2:]
    with caplog.at_level(logging.INFO):
        log_problems(one, other)
    names = sorted(one.index.file_names[position] for position in other.positions)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"train and val share {len(names)} images, so that the validation AP is too high: ")
    assert str(path.parent / "images" / names[0]) in line


def test_classes_of_the_splits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(tmp_path / "data", splits(only_dogs_in("val")))
    (line,) = logged(tmp_path / "data", caplog, "val.json")
    assert "class 'cat' has 6 objects in train, but none in val" in line
