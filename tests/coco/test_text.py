"""The text of a JSON file: every encoding that JSON allows, and one line for everything else."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tldet.cli.main import main
from tldet.coco.reader import read_coco
from tldet.coco.records import as_utf8, not_json, read_json_text
from tldet.coco.text import parse, top_level
from tldet.data.index import AnnotationIndex
from tldet.errors import DataError
from tldet.evaluation.coco import evaluate_files
from tldet.system.output import write_json

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
NAME = "café 猫 😀"
COCO: dict[str, Any] = {
    "images": [{"id": 9, "file_name": f"{NAME}.jpg", "width": 100, "height": 50}],
    "categories": [{"id": 7, "name": NAME}],
    "annotations": [{"id": 5, "image_id": 9, "category_id": 7, "bbox": [10, 5, 20, 10], "area": 200, "iscrowd": 0}],
}
FOUND = [{"image_id": 9, "category_id": 7, "bbox": [10, 5, 20, 10], "score": 0.5}]


def encoded(values: Any, encoding: str) -> bytes:
    return json.dumps(values, ensure_ascii=False).encode(encoding)


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("train.json", content)
    return file.getvalue()


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_of_json_is_read_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path / "cache"))
    gt, dt = tmp_path / "gt.json", tmp_path / "dt.json"
    gt.write_bytes(encoded(COCO, encoding))
    dt.write_bytes(encoded(FOUND, encoding))
    index = AnnotationIndex.load(gt)
    assert (index.class_names, index.boxes.tolist()) == ((NAME,), [[10, 5, 30, 15]])
    assert list(top_level(read_json_text(gt), str(gt))) == list(COCO)
    result = evaluate_files(gt, dt)
    assert pytest.approx(1) == result.AP


TEXT = encoded(COCO, "utf-8")
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
HALF = rb'{"images": [{"id": 1, "file_name": "a\ud800.jpg"}], "categories": [], "annotations": []}'
NO_TEXT = [
    (b"", "is empty"),
    (b" \r\n", "is empty"),
    (b"\xef\xbb\xbf", "is empty"),
    ("\ufeff\n".encode("utf-16"), "is empty"),
    (bytes(4096), "contains only zero bytes"),
    (LFS, "is a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'"),
    (b"\n <!DOCTYPE html>\n<html></html>", "is an HTML page"),
    ("<HTML></HTML>".encode("utf-16"), "is an HTML page"),
    (b"<annotation></annotation>", "is XML, not JSON"),
    (gzip.compress(TEXT), "is gzip-compressed"),
    (bz2.compress(TEXT), "is bzip2-compressed"),
    (lzma.compress(TEXT), "is xz-compressed"),
    (zipped(TEXT), "is a zip archive"),
    (b"\x89PNG\r\n\x1a\n0000", "is a PNG image"),
    (b"\xff\xd8\xff\xe0\x00\x10JFIF", "is a JPEG image"),
    (encoded(COCO, "utf-16")[:-1], "is damaged UTF-16 text"),
    (json.dumps(COCO, ensure_ascii=False).replace("猫", "").replace("😀", "").encode("latin-1"), "byte 0xe9 in line 1"),
    (HALF, r"images[0].file_name 'a\ud800.jpg' contains half of a UTF-16 pair"),
    (rb'{"a\udc00": 1}', r"key 'a\udc00' contains half of a UTF-16 pair"),
    (HALF.replace(rb"\ud800", "\ud800".encode("utf-8", "surrogatepass")), "is not UTF-8 (byte 0xed in line 1"),
    (TEXT[:-1], "is cut off at line 1"),
    (TEXT[: TEXT.index(b"\xf0") + 2], "is cut off in the middle of a character"),
    (b'{"images": [1, 2,]}', "is not valid JSON (line 1, column 1"),
    (b"hello", "is not valid JSON (line 1, column 1"),
    (TEXT + TEXT, "Extra data"),
    (b'{"id": ' + b"9" * 5000 + b"}", "'id' is an integer of more than 308 digits; correct it"),
]
IDS = [f"{n}: {expected[:30]}" for n, (_, expected) in enumerate(NO_TEXT)]


@pytest.mark.parametrize(("content", "expected"), NO_TEXT, ids=IDS)
@pytest.mark.parametrize("which", ["gt", "dt", "index"])
def test_invalid_json_is_a_one_line_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, expected: str, which: str
) -> None:
    paths = {"gt": tmp_path / "gt.json", "dt": tmp_path / "dt.json"}
    paths["gt"].write_bytes(TEXT)
    paths["dt"].write_bytes(encoded(FOUND, "utf-8"))
    wrong = paths["gt" if which == "index" else which]
    wrong.write_bytes(content)
    if which == "index":
        with pytest.raises(DataError) as raised:
            AnnotationIndex.load(wrong, cache=False)
        message = str(raised.value)
    else:
        assert main(["evaluate", "--gt", str(paths["gt"]), "--dt", str(paths["dt"])]) == 2
        message = capsys.readouterr().err.strip().removeprefix("tldet evaluate: error: ")
    assert message.startswith(f"{wrong}: ")
    assert expected in message
    assert "\n" not in message


def test_lone_surrogate_next_to_a_valid_pair() -> None:
    assert parse(rb'["\ud83d\ude00", "\u00e9"]', "x") == ["😀", "é"]
    with pytest.raises(DataError, match=r"x: \[1\]\.name 'b\\udfff'"):
        parse(rb'[{"name": "\ud83d\ude00"}, {"name": "b\udfff", "other": "\ud800"}]', "x")


def test_the_beginning_of_a_file_is_enough() -> None:
    assert not_json(TEXT[:64]) is None
    assert not_json(LFS[:30]) == not_json(LFS)


def test_fields_with_nan() -> None:
    assert set(top_level(b'{"images": [], "info": {"mean": NaN}}', "x")) == {"images", "info"}
    with pytest.raises(DataError, match="x: is not an object"):
        top_level(b"[1]", "x")


def test_names_that_are_no_text_are_written_and_read_again(tmp_path: Path) -> None:
    """A file's name may hold bytes that are no UTF-8; Python reads each as half of a UTF-16 pair."""
    content = [{"file_name": "caf\udce9.jpg", "category": NAME}]
    write_json(tmp_path / "a.json", content)
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == content
    assert as_utf8((tmp_path / "a.json").read_bytes(), "x").count(rb"\udce9") == 1


def test_half_a_pair_in_memory() -> None:
    values = {**COCO, "images": [{**COCO["images"][0], "id": "a\ud800"}]}
    with pytest.raises(DataError, match=r"the ground truth: images\[0\].id .*contains half of a UTF-16 pair"):
        evaluate_files(values, [])
    found = {"image_id": 9, "category_id": 7, "bbox": [10, 5, 3, 4], "score": 0.5}
    for more, where in (({"bbox": "\udfff"}, r"\[0\].bbox"), ({"a\ud800": 1}, "key")):
        with pytest.raises(DataError, match=rf"the detections: {where} .*contains half of a UTF-16 pair"):
            evaluate_files(COCO, [{**found, **more}])


WHOLE = '"images": [{"id": 1}], "categories": [{"id": 1, "name": "\\"images\\""}], "annotations": [%s]'
ONE = '{"id": %d, "image_id": 1, "category_id": 1, "bbox": [0, 0, 5, %s], "annotations": 1, "images": 2}'


@pytest.mark.parametrize("number", ["5", "5.0e0", "NaN"])  # NaN takes Python's parser
@pytest.mark.parametrize(
    "repeated", ['"annotations": []', '"annotations": [' + ONE % (3, 5) + "]", '"images": [{"id": 1}]']
)
@pytest.mark.parametrize("first", [False, True])
def test_a_list_that_occurs_twice(tmp_path: Path, repeated: str, number: str, first: bool) -> None:
    path = tmp_path / "a.json"
    parts = [WHOLE % f"{ONE % (1, 5)}, {ONE % (2, number)}", repeated]
    path.write_text("{" + ", ".join(parts[::-1] if first else parts) + "}")
    with pytest.raises(DataError, match=r'a.json: "(images|annotations)" occurs twice; keep one of them'):
        read_coco(path)


def test_lists_that_occur_once_beside_their_names_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"info": {"images": 1, "annotations": "annotations"}, %s}' % (WHOLE % (ONE % (1, 5))))
    assert len(read_coco(path).objects.ids) == 1


def test_a_list_name_that_occurs_twice_inside_another_field(tmp_path: Path) -> None:
    """With NaN in the file too, only the outermost object counts."""
    path = tmp_path / "a.json"
    for number in ("5", "NaN"):
        path.write_text(f'{{"info": {{"images": 1, "images": 2}}, "x": {number}, {WHOLE % (ONE % (1, 5))}}}')
        assert len(read_coco(path).objects.ids) == 1
