"""Broken annotations of each format: one line that names the file and the line or element."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.formats.made import make
from tldet.cli.main import main
from tldet.data.formats.prepare import check_files, complete
from tldet.data.formats.source import SourceOptions, read_source
from tldet.errors import DataError

BOMB = '<!DOCTYPE a [<!ENTITY x "lol"><!ENTITY y "&x;&x;&x;">]><annotation>&y;</annotation>'
FETCH = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation>&x;</annotation>'
YAML_BOMB = "a: &a [x, x, x, x]\nb: &b [*a, *a, *a, *a]\nnames: [cat]\ntrain: images/train\nnc: *b\n"
HEADER = "ImageID,LabelName,XMin,XMax,YMin,YMax\n"

# Format, file, text to replace (None: the whole file), its replacement, and what the message holds after the file.
CASES = [
    ("voc", "Annotations/a.xml", "<xmin>10</xmin>", "<xmin>ten</xmin>", "line 15: <xmin> is 'ten', not a number"),
    ("voc", "Annotations/a.xml", "<xmin>10</xmin>", "", "line 15: <xmin> is missing"),
    ("voc", "Annotations/a.xml", "<xmax>50</xmax>", "<xmax>5</xmax>", "line 15: <xmax> 5 is smaller than <xmin> 10"),
    ("voc", "Annotations/a.xml", "<ymax>60</ymax>", "<ymax>nan</ymax>", "line 15: <ymax> is nan; it must be a finite"),
    ("voc", "Annotations/a.xml", "<name>cat</name>", "<name> </name>", "line 10: <name> is missing or empty"),
    (
        "voc",
        "Annotations/a.xml",
        "<name>cat</name>",
        "<name>cat</name></object><object>",
        "line 10: <object> 'cat' has no",
    ),
    (
        "voc",
        "Annotations/a.xml",
        "</annotation>",
        "",
        "line 35: is not well-formed XML (no element found; the file may",
    ),
    ("voc", "Annotations/a.xml", None, BOMB, "line 1: declares an XML entity"),
    ("voc", "Annotations/a.xml", None, FETCH, "line 1: declares an XML entity"),
    ("voc", "Annotations/a.xml", "<width>100", "<width>120", "states size 120 x 80, but"),
    (
        "voc",
        "Annotations/a.xml",
        "<width>100",
        "<width>-100",
        "line 5: <width> is -100; it must be a whole number above",
    ),
    ("voc", "Annotations/a.xml", "a.png", "b.png", "describes"),
    ("cvat", "annotations.xml", 'label="dog"', "", "line 5: label is missing or empty"),
    ("cvat", "annotations.xml", 'xtl="30.5"', 'xtl="x"', "line 5: xtl is 'x', not a number"),
    ("cvat", "annotations.xml", 'xtl="30.5"', 'xtl="95"', "line 5: xbr 90 is smaller than xtl 95"),
    ("cvat", "annotations.xml", 'width="100"', 'width="0"', "line 3: width is 0; it must be a whole number above 0"),
    ("cvat", "annotations.xml", ' name="a.png"', "", "line 3: <image> has no name"),
    ("cvat", "annotations.xml", "</annotations>", "", "is not well-formed XML"),
    ("cvat", "annotations.xml", "<version>1.1</version>", '<track label="cat"/>', "line 2: is of CVAT for video"),
    ("cvat", "annotations.xml", '<box label="dog"', '<polygon points="1,2;3" label="dog"', "not well-formed"),
    ("labelme", "a.json", '"rectangle"', '"cube"', "shapes[0]: shape_type 'cube' is unknown"),
    ("labelme", "a.json", '"label": "cat"', '"label": null', "shapes[0]: label is missing or empty"),
    ("labelme", "a.json", "[[50, 20], [10, 60]]", "[[50, 20]]", "shapes[0]: a rectangle needs 2 points, not 1"),
    ("labelme", "a.json", "[50, 20]", "[50]", "shapes[0]: points[0] must be [x, y]"),
    ("labelme", "a.json", "[50, 20]", '["x", 20]', "shapes[0]: points[0] x is 'x', not a number"),
    ("labelme", "a.json", '"imageHeight": 80', '"imageHeight": 8.5', "imageHeight is 8.5; it must be a whole number"),
    ("labelme", "a.json", "}], ", "}], ,", "is not valid JSON (line 1"),
    ("labelme", "a.json", '"imagePath": "a.png"', '"imagePath": "z.png"', "its image"),
    (
        "label_studio",
        "project.json",
        '"width": 40.0',
        '"width": -40.0',
        "[0].annotations[0].result[0]: width is negative",
    ),
    ("label_studio", "project.json", '["cat"]', "[]", "[0].annotations[0].result[0]: label is missing"),
    ("label_studio", "project.json", '"x": 10.0', '"x": null', "[0].annotations[0].result[0]: x is missing"),
    ("label_studio", "project.json", '"image"', '"text"', "[0]: has no 'image'"),
    (
        "label_studio",
        "project.json",
        '"original_width": 100',
        '"original_width": "w"',
        "result[0]: original_width is 'w'",
    ),
    ("createml", "_annotations.createml.json", '"width": 40', '"width": -1', "[0].annotations[0]: width is negative"),
    ("createml", "_annotations.createml.json", '"x": 30.0', '"x": "?"', "[0].annotations[0]: x is '?', not a number"),
    ("createml", "_annotations.createml.json", '"image": "a.png"', '"image": 3', "[0]: has no 'image'"),
    ("createml", "_annotations.createml.json", '"label": "cat"', '"label": 7', "[0].annotations[0]: label is not text"),
    (
        "open_images",
        "annotations-bbox.csv",
        None,
        HEADER + "a,/m/cat,0.1,1.5,0,1\n",
        "line 2: XMax is 1.5; it must lie",
    ),
    (
        "open_images",
        "annotations-bbox.csv",
        None,
        HEADER + "a,/m/cat,0.5,0.1,0,1\n",
        "line 2: XMax 0.1 is smaller than",
    ),
    ("open_images", "annotations-bbox.csv", None, HEADER + "a,/m/cat,0.5\n", "line 2: has another number of values"),
    ("open_images", "annotations-bbox.csv", None, HEADER + "z,/m/cat,0,1,0,1\n", "line 2: its image"),
    ("open_images", "annotations-bbox.csv", "XMin", "Left", "line 1: has no column XMin"),
    ("yolo", "labels/train/a.txt", "0 0.3", "7 0.3", "line 1: class 7 is unknown: there are 2 names"),
    ("yolo", "labels/train/a.txt", "0 0.3", "cat 0.3", "line 1: class 'cat' is not a whole number from 0"),
    ("yolo", "labels/train/a.txt", "0 0.3", "0 30", "line 1: 30 lies outside 0..1"),
    ("yolo", "labels/train/a.txt", "0 0.3", "0", "line 1: has 4 values; it must be"),
    ("yolo", "labels/train/a.txt", "0 0.3", "0 0.9 0.3", "line 1: has 6 values (a detection with its score?)"),
    ("yolo", "labels/train/a.txt", "0 0.3", "0 x", "line 1: a coordinate is 'x', not a number"),
    ("yolo", "labels/train/a.txt", "0.4 0.5\n", "-0.4 0.5\n", "line 1: -0.4 lies outside 0..1"),
    ("yolo", "data.yaml", "nc: 2", "nc: 3", "line 3: nc is 3, but there are 2 names"),
    ("yolo", "data.yaml", "images/train", "images/nowhere", "line 2: train: 'images/nowhere': no such file or folder"),
    ("yolo", "data.yaml", "  1: dog", "  2: dog", "line 4: names: must be numbered 0 to 1 without gaps"),
    ("yolo", "data.yaml", "  1: dog", "  1: cat", "line 4: names: 'cat' occurs twice"),
    ("yolo", "data.yaml", "nc: 2", "nc: [", "is not valid YAML"),
    ("yolo", "data.yaml", None, YAML_BOMB, "line 5: nc is not a whole number, but there is 1 name"),
    ("coco", "instances.json", '"category_id": 2', '"category_id": 9', "annotation id 2 has unknown category_id 9"),
    ("coco", "instances.json", '"width": 100', '"width": "w"', "image id 1: 'width' must be a whole number"),
]


def _broken(folder: Path, name: str, file: str, old: str | None, new: str) -> Path:
    path = make(folder, name) / file
    text = path.read_text()
    if old is not None:
        assert old in text, text
    path.write_text(new if old is None else text.replace(old, new, 1))
    return path


def _read(folder: Path, name: str) -> None:
    found = read_source(folder, SourceOptions(format=name))
    complete(found)
    check_files(found)


@pytest.mark.parametrize(("name", "file", "old", "new", "what"), CASES)
def test_one_line_names_file_and_element(
    tmp_path: Path, name: str, file: str, old: str | None, new: str, what: str
) -> None:
    path = _broken(tmp_path / "data", name, file, old, new)
    with pytest.raises(DataError) as error:
        _read(tmp_path / "data", name)
    message = str(error.value)
    assert str(path) in message
    assert what in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "file", "old", "new", "what"), [CASES[0], CASES[20], CASES[42]])
def test_the_command_ends_with_2_and_one_line(
    tmp_path: Path, name: str, file: str, old: str | None, new: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _broken(tmp_path / "data", name, file, old, new)
    out = tmp_path / "out"
    assert main(["finetune", "--data", str(tmp_path / "data"), "--out", str(out), "--steps", "1"]) == 2
    assert what in "".join(capsys.readouterr().err.split("\n"))
    assert not (out / "dataset").exists()


@pytest.mark.parametrize(("name", "file"), [("voc", "Annotations/b.xml"), ("labelme", "b.json")])
@pytest.mark.parametrize("content", ["", "\0\0\0\0", "not what it should be"])
def test_a_damaged_file_beside_others_is_not_skipped(tmp_path: Path, name: str, file: str, content: str) -> None:
    path = _broken(tmp_path, name, file, None, content)
    with pytest.raises(DataError, match=str(path)):
        read_source(tmp_path, SourceOptions())


def test_xml_beyond_the_limit_is_not_read(tmp_path: Path) -> None:
    from tldet.data.formats.xml import read_xml

    path = tmp_path / "a.xml"
    path.write_text("<annotation>" + " " * 2000 + "</annotation>")
    with pytest.raises(DataError, match="more than the limit"):
        read_xml(path, 1000)
    path.write_text("<a>" * 100 + "</a>" * 100)
    with pytest.raises(DataError, match="nested more than 64 deep"):
        read_xml(path)
