"""Which split of a folder is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tldet.cli.main import main
from tldet.data.split_paths import evaluation_split
from tldet.errors import DataError


def annotated(path: Path, image: str = "a.jpg") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (path.parent / image).touch()
    images = [{"id": 1, "file_name": image, "width": 8, "height": 8}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "area": 16}]
    path.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "c"}]}))
    return path


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        (["train/a.json", "valid/a.json", "test/a.json"], "test/a.json"),
        (["train/a.json", "valid/a.json"], "valid/a.json"),
        (["instances_val2017.json", "instances_train2017.json"], "instances_val2017.json"),
        (["mine.json"], "mine.json"),
        (["train.json", "mine.json"], "mine.json"),
    ],
)
def test_the_test_split_comes_before_the_validation_split(tmp_path: Path, files: list[str], chosen: str) -> None:
    for number, name in enumerate(files):
        annotated(tmp_path / name, f"{number}.jpg")
    found = evaluation_split(tmp_path, None)
    assert found.annotations == tmp_path / chosen
    assert found.images == (tmp_path / chosen).parent


def test_a_training_split_is_not_evaluated_unasked(tmp_path: Path) -> None:
    annotated(tmp_path / "train.json")
    with pytest.raises(DataError, match="contains no test or validation annotations; use the JSON to evaluate on as"):
        evaluation_split(tmp_path, None)
    assert evaluation_split(tmp_path / "train.json", None).images == tmp_path


def test_ambiguous_files_are_named(tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        annotated(tmp_path / name)
    with pytest.raises(DataError, match=r"several JSON files of unknown splits \(one.json, two.json\)"):
        evaluation_split(tmp_path, None)
    (tmp_path / "two.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"two.json: is cut off"):
        evaluation_split(tmp_path, None)
    with pytest.raises(DataError, match="contains no test or validation annotations"):
        evaluation_split((tmp_path / "empty").mkdir() or tmp_path / "empty", None)


def test_images_may_be_named_within_the_split(tmp_path: Path) -> None:
    path = annotated(tmp_path / "test" / "a.json")
    (path.parent / "photos").mkdir()
    (path.parent / "a.jpg").rename(path.parent / "photos" / "a.jpg")
    assert evaluation_split(tmp_path, "photos").images == path.parent / "photos"


def test_the_command_takes_a_folder(
    run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = [tmp_path / "folder.json", tmp_path / "file.json"]
    given = ["test", str(run / "best.pt"), "--device", "cpu", "--data"]
    assert main([*given, str(digits), "--json", str(metrics[0])]) == 0
    err = capsys.readouterr().err
    assert f"evaluating on {digits / 'test' / '_annotations.coco.json'}, images in {digits / 'test'}" in err
    assert "evaluation: 6 images, " in err
    assert main([*given, str(digits / "test" / "_annotations.coco.json"), "--json", str(metrics[1])]) == 0
    assert metrics[0].read_text() == metrics[1].read_text()
