"""A COCO JSON read in blocks of any size holds what Python's parser finds, in every layout that JSON allows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tldet.coco import document
from tldet.coco.document import DocumentReader
from tldet.errors import DataError

POLYGON = [[1.5, 2, 30, 4, 5, 60]]
RLE = {"size": [50, 100], "counts": "abc"}
IMAGES = [{"id": key, "file_name": f"{key}, {{}}.jpg", "width": 100, "height": 50} for key in range(4)]
CATEGORIES = [{"id": 7, "name": '"annotations": ['}, {"id": 3, "name": "}, {"}]


def annotation(key: int, **more: Any) -> dict[str, Any]:
    return {"id": key, "image_id": key % 4, "category_id": 3, "bbox": [key, 1, 2, 3], "segmentation": POLYGON, **more}


ODD = {
    "rle": {"segmentation": RLE},
    "rle last": {"extra": RLE},
    "list of objects": {"attributes": [{"a": 1}, {"b": 2}, {"c": [{"d": 3}, {"e": 4}]}]},
    "text like a border": {"note": '}, {"id": 5}], "images": [{'},
    "long text": {"note": "x" * 3000},
    "nan": {"area": float("nan")},
    "id 7.0": {"category_id": 7.0},
}


def parts(order: tuple[str, ...], count: int, odd: dict[str, Any]) -> dict[str, Any]:
    entries = [annotation(key, **(odd if key % 3 == 1 else {})) for key in range(count)]
    info = {"annotations": "none", "about": '"annotations": ['}
    values = {"images": IMAGES, "categories": CATEGORIES, "annotations": entries, "info": info}
    return {key: values[key] for key in order}


def read(path: Path) -> tuple[list[Any], list[Any], list[Any]]:
    reader = DocumentReader(path, "the file")
    found = [(a.id, a.image_id, a.category_id, a.bbox, json.loads(bytes(a.segmentation))) for b in reader for a in b]
    return [one.file_name for one in reader.images], [one.name for one in reader.categories], found


def expected(whole: dict[str, Any]) -> tuple[list[Any], list[Any], list[Any]]:
    keys = ("id", "image_id", "category_id", "bbox", "segmentation")
    return (
        [one["file_name"] for one in whole["images"]],
        [one["name"] for one in whole["categories"]],
        [tuple(one[key] for key in keys) for one in whole["annotations"]],
    )


@pytest.fixture(params=[64, 500, 1 << 20])
def block_bytes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(document, "BLOCK_BYTES", request.param)
    return request.param


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    order=st.permutations(["images", "categories", "annotations", "info"]),
    count=st.integers(0, 12),
    odd=st.sampled_from(sorted(ODD)),
    style=st.sampled_from(
        [{}, {"indent": 1}, {"indent": 4}, {"separators": (",", ":")}, {"separators": (" , ", " : ")}]
    ),
)
def test_every_layout(
    tmp_path: Path, block_bytes: int, order: list[str], count: int, odd: str, style: dict[str, Any]
) -> None:
    whole = parts(tuple(order), count, ODD[odd])
    path = tmp_path / "some.json"
    path.write_text(json.dumps(whole, **style), encoding="utf-8")
    assert read(path) == expected(whole)


def blocks(path: Path) -> list[int]:
    return [len(block) for block in DocumentReader(path, "the file")]


def test_plain_annotations_are_read_in_blocks_and_not_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(document, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(document, "parse", lambda *_: pytest.fail("the whole file was parsed"))
    for odd in ("rle", "rle last", "text like a border"):
        path = tmp_path / f"{odd}.json"
        path.write_text(json.dumps(parts(("images", "annotations", "categories"), 90, ODD[odd])), encoding="utf-8")
        sizes = blocks(path)
        assert sum(sizes) == 90
        assert max(sizes) < 20, odd


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("order", [("images", "annotations", "categories"), ("annotations", "categories", "images")])
def test_a_list_that_occurs_twice(tmp_path: Path, block_bytes: int, key: str, order: tuple[str, ...]) -> None:
    text = json.dumps(parts(order, 9, {}))
    for twice in (f'{{"{key}": [], {text[1:]}', f'{text[:-1]}, "{key}": []}}'):
        (tmp_path / "some.json").write_text(twice, encoding="utf-8")
        with pytest.raises(DataError, match=f'the file: "{key}" occurs twice'):
            blocks(tmp_path / "some.json")


@pytest.mark.parametrize("end", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off(tmp_path: Path, block_bytes: int, end: float) -> None:
    text = json.dumps(parts(("images", "categories", "annotations"), 30, {}))
    (tmp_path / "some.json").write_text(text[: int(len(text) * end)], encoding="utf-8")
    with pytest.raises(DataError, match="the file: is cut off at line 1"):
        blocks(tmp_path / "some.json")


def test_an_invalid_record_is_named_by_its_position_in_the_file(tmp_path: Path, block_bytes: int) -> None:
    whole = parts(("images", "annotations", "categories"), 30, {})
    whole["annotations"][17]["bbox"] = "1 2 3 4"
    (tmp_path / "some.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(DataError, match="the file: annotation id 17"):
        blocks(tmp_path / "some.json")


def test_text_after_the_document(tmp_path: Path, block_bytes: int) -> None:
    text = json.dumps(parts(("images", "annotations", "categories"), 30, {}))
    (tmp_path / "some.json").write_text(text + ", {}", encoding="utf-8")
    with pytest.raises(DataError, match="the file: is not valid JSON"):
        blocks(tmp_path / "some.json")


def test_a_key_with_escapes_and_a_document_without_annotations(tmp_path: Path, block_bytes: int) -> None:
    whole = parts(("images", "annotations", "categories"), 30, {})
    path = tmp_path / "some.json"
    path.write_text(json.dumps(whole).replace('"annotations": [', '"annot\\u0061tions": [', 1), encoding="utf-8")
    assert read(path) == expected(whole)
    del whole["annotations"]
    path.write_text(json.dumps(whole), encoding="utf-8")
    reader = DocumentReader(path, "the file")
    assert (list(reader), reader.listed, len(reader.images)) == ([[]], False, 4)


@pytest.mark.parametrize("key", ['x"annotations', 'annotations"x', "\\"])
@pytest.mark.parametrize("first", [True, False])
def test_a_list_whose_key_ends_like_that_of_the_annotations(
    tmp_path: Path, block_bytes: int, key: str, first: bool
) -> None:
    whole = parts(("images", "categories", "annotations"), 30, {})
    other = {key: [annotation(100 + row) for row in range(9)]}
    (tmp_path / "some.json").write_text(json.dumps({**other, **whole} if first else {**whole, **other}))
    assert read(tmp_path / "some.json") == expected(whole)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
@pytest.mark.parametrize("first", [True, False])
def test_a_list_that_occurs_twice_once_with_escapes(tmp_path: Path, block_bytes: int, key: str, first: bool) -> None:
    text = json.dumps(parts(("images", "annotations", "categories"), 9, {}))
    escaped = f'"{key[:-1]}\\u0073": []'
    (tmp_path / "some.json").write_text(f"{{{escaped}, {text[1:]}" if first else f"{text[:-1]}, {escaped}}}")
    with pytest.raises(DataError, match=f'the file: "{key}" occurs twice'):
        blocks(tmp_path / "some.json")


def test_a_key_that_is_not_utf_8(tmp_path: Path, block_bytes: int) -> None:
    text = json.dumps({**parts(("images", "annotations", "categories"), 9, {}), "a?o": {"annotations": 1}})
    (tmp_path / "some.json").write_bytes(text.encode().replace(b"a?o", b"a\xf1o"))
    with pytest.raises(DataError, match=r"the file: is not UTF-8 \(byte 0xf1"):
        blocks(tmp_path / "some.json")


@pytest.mark.parametrize("odd", ["rle", "nan"])
def test_a_file_that_changes_while_it_is_read(tmp_path: Path, block_bytes: int, odd: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(parts(("images", "annotations", "categories"), 30, ODD[odd])))
    read_blocks = iter(DocumentReader(path, "the file"))
    next(read_blocks)
    with path.open("a") as file:
        file.write(" ")
    with pytest.raises(DataError, match="the file: changed while it was read"):
        list(read_blocks)
