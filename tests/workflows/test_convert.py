"""``tldet convert``: what is kept, dropped and reported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.formats.made import make
from tests.data.formats.twins import boxes_of, prepared
from tldet.cli.main import main
from tldet.data.formats.records import Dataset
from tldet.data.formats.source import SourceOptions
from tldet.data.split_paths import find_splits
from tldet.errors import DataError, OutputError
from tldet.workflows.convert import convert


def outlines_of(found: Dataset) -> dict[str, list[str]]:
    return {
        image.path.name: sorted(json.dumps([shape.polygons, shape.rle, shape.crowd]) for shape in image.shapes)
        for image in found.images
    }


def test_coco_is_unchanged(shared: Path, tmp_path: Path) -> None:
    """Ids, polygons, run lengths and crowd regions are kept."""
    folder = shared / "data" / "coco_mini"
    report = convert(folder, to="coco", out=tmp_path / "out", link=True)
    assert (report.read, report.written, report.masks, report.dropped) == (1237, 1237, 1237, {})
    source, found = prepared(folder), prepared(tmp_path / "out")
    assert boxes_of(found) == boxes_of(source)
    assert outlines_of(found) == outlines_of(source)
    old = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    new = json.loads((tmp_path / "out" / "annotations" / "instances_val.json").read_text())
    for part, key in (("images", "file_name"), ("annotations", "image_id"), ("categories", "name")):
        assert {one["id"]: one[key] for one in new[part]} == {one["id"]: one[key] for one in old[part]}


def test_masks_in_yolo(shared: Path, tmp_path: Path) -> None:
    """Single polygons are kept; crowd regions are dropped, and of other masks the box is kept; all are counted."""
    folder = shared / "data" / "coco_mini"
    report = convert(folder, to="yolo", out=tmp_path / "out", link=True)
    source, found = prepared(folder), prepared(tmp_path / "out")
    assert report.dropped["crowd regions dropped: YOLO labels have none"] == 16
    assert report.written == 1237 - 16 == sum(len(image.shapes) for image in found.images)
    without = sum(count for what, count in report.dropped.items() if "the box is kept" in what)
    assert report.masks + without == report.written
    assert report.masks == sum(bool(shape.polygons) for image in found.images for shape in image.shapes) > 500
    assert len(found.images) == len(source.images)


def test_voc_reports_masks_and_keeps_difficult(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data"
    report = convert(folder / "coco_mini", to="voc", out=tmp_path / "mini", link=True)
    assert report.dropped == {
        "crowd regions dropped: Pascal VOC has none": 16,
        "masks dropped, the box is kept": 1237 - 16,
    }
    convert(folder / "voc_formats" / "pascal_voc", to="voc", out=tmp_path / "voc", voc_boxes="continuous", link=True)
    again = prepared(tmp_path / "voc")
    assert "stated in the files" in again.details[0]
    assert sum(shape.difficult for image in again.images for shape in image.shapes) == 31


@pytest.mark.parametrize("boxes", ["continuous", "inclusive"])
def test_both_meanings_of_voc_corners_survive(tmp_path: Path, boxes: str) -> None:
    source = make(tmp_path / "source", "coco")
    assert main(["convert", str(source), "--to", "voc", "--voc-boxes", boxes, "--out", str(tmp_path / "out")]) == 0
    assert boxes_of(prepared(tmp_path / "out")) == boxes_of(prepared(source))
    text = (tmp_path / "out" / "Annotations" / "a.xml").read_text()
    assert f"<xmin>{11 if boxes == 'inclusive' else 10}</xmin>" in text


def test_a_folder_with_files_is_refused(tmp_path: Path) -> None:
    source = make(tmp_path / "source", "coco")
    convert(source, to="yolo", out=tmp_path / "out")
    with pytest.raises(OutputError, match="contains an earlier conversion"):
        convert(source, to="voc", out=tmp_path / "out")
    assert main(["convert", str(source), "--to", "voc", "--out", str(source)]) == 2


@pytest.mark.parametrize(
    "text", ["dog\nbird\n", '["dog", "bird"]', '{"categories": [{"id": 2, "name": "bird"}, {"id": 1, "name": "dog"}]}']
)
def test_classes_are_chosen_and_ordered(text: str, tmp_path: Path) -> None:
    source = make(tmp_path / "source", "labelme")
    (tmp_path / "classes.txt").write_text(text)
    report = convert(source, to="coco", out=tmp_path / "out", classes=tmp_path / "classes.txt")
    assert report.classes == ("dog", "bird")
    assert report.left_out == {"objects of class 'cat' left out: not in --classes": 2}
    assert prepared(tmp_path / "out").classes == ["dog", "bird"]


UNUSABLE = {
    "cut off": lambda values: json.dumps(values)[:300],
    "no list": lambda values: json.dumps({key: values[key] for key in ("images", "categories")}),
    "captions": lambda values: json.dumps({**values, "annotations": [{"id": 1, "image_id": 1, "caption": "x"}]}),
    "an object": lambda values: json.dumps({**values, "annotations": {str(a["id"]): a for a in values["annotations"]}}),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_split_that_cannot_be_read_is_never_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    """convert wrote, split divided and check praised the other split alone."""
    for name in ("train", "val"):
        make(tmp_path / "data" / name, "coco")
        (tmp_path / "data" / name / "instances.json").rename(tmp_path / "data" / name / "labels.json")
    path = tmp_path / "data" / "train" / "labels.json"
    path.write_text(UNUSABLE[kind](json.loads(path.read_text())))
    problem = {"cut off": "is cut off", "no list": "no annotations", "captions": "neither bbox", "an object": "'annota"}
    data, out = str(tmp_path / "data"), str(tmp_path / "out")
    assert main(["convert", data, "--to", "coco", "--out", out]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert problem[kind] in error
    assert "--train" not in error
    assert not (tmp_path / "out").exists()
    assert main(["split", data, "--out", out]) == 2
    error = capsys.readouterr().err
    assert "train/labels.json" in error
    main(["check", data, "--fast"])
    assert f"{path}: " in capsys.readouterr().out


def test_advice_names_only_options_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path / "data", "voc") / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<width>100", "<width>120"))
    assert main(["convert", str(tmp_path / "data"), "--to", "coco", "--out", str(tmp_path / "out")]) == 2
    assert "on-bad-image" not in capsys.readouterr().err
    assert main(["split", str(tmp_path / "data"), "--out", str(tmp_path / "out")]) == 2
    assert "on-bad-image" not in capsys.readouterr().err
    with pytest.raises(DataError, match="skip such images with --on-bad-image skip"):
        find_splits(tmp_path / "data", None, None, None, tmp_path / "run", SourceOptions(missing=False))
    (tmp_path / "data" / "a.png").unlink()
    assert main(["convert", str(tmp_path / "data"), "--to", "coco", "--out", str(tmp_path / "out")]) == 2
    assert "on-bad-image" not in capsys.readouterr().err


def test_folders_searched_for_images_are_listed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make(tmp_path / "data", "coco") / "instances.json"
    path.write_text(path.read_text().replace(".png", "_lost.png"))
    assert main(["convert", str(path.parent), "--to", "coco", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    folders = error.split("not found in ")[1].split(";")[0].replace(", ...", "").split(", ")
    assert len(folders) == len(set(folders)), error


ODD_NAMES = {
    ("red", "red "): "'red' and 'red ' differ only in blanks",
    ("red", " "): "class ' ' has no name",
    ("red", "b\x00"): "class 'b\\x00' contains a character that XML cannot hold",
    ("red", "b\r\uffff"): "class 'b\\r\\uffff' contains a character that XML cannot hold",
    ("a\nb", "c\x85d"): "",
    ("null", "1"): "",
    ("- a: #", "'\"<&amp;"): "",
}


@pytest.mark.parametrize("to", ["yolo", "voc"])
@pytest.mark.parametrize("names", ODD_NAMES)
def test_class_names_are_read_as_they_were_written_or_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], to: str
) -> None:
    """The conversion succeeded, and the result could not be read or had one class less."""
    path = make(tmp_path / "data", "coco") / "instances.json"
    values = json.loads(path.read_text())
    for one, name in zip(values["categories"], names, strict=False):
        one["name"] = name
    path.write_text(json.dumps(values))
    given = [one["name"] for one in values["categories"]]
    problem = ODD_NAMES[names]
    code = main(["convert", str(path.parent), "--to", to, "--out", str(tmp_path / "out")])
    if problem and not (to == "yolo" and "XML" in problem):
        assert code == 2
        assert problem in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    else:
        assert code == 0
        assert set(prepared(tmp_path / "out").classes) == set(given)
