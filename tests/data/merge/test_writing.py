"""A merged data set as a file: ids anew, everything else as it was."""

from __future__ import annotations

import json
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO

from tldet.data.layouts import Split
from tldet.data.merge.classes import merge_classes
from tldet.data.merge.join import join
from tldet.data.merge.source import read_merge_source
from tldet.data.merge.writing import write_joined
from tldet.errors import DataError

ODD = '{"id":1, "who" : "é\\u00e9", "bbox":[1.50,2,3e0,4], "image_id": 1,"category_id": 1, "attributes": {"a": [1.10]}}'


def record_of(number: int, **more: Any) -> dict[str, Any]:
    return {"id": number, "file_name": "x.jpg", "width": 60, "height": 40, **more}


def write(tmp_path: Path, *contents: dict[str, Any] | str, same: list[int]) -> tuple[int, str]:
    sources = []
    for number, content in enumerate(contents):
        path = tmp_path / f"{number}.json"
        whole = content if isinstance(content, str) else json.dumps(content).replace('"ODD"', ODD)
        path.write_text(whole, encoding="utf-8")
        sources.append(read_merge_source(Split(path, tmp_path)))
    classes = merge_classes([s.categories for s in sources], {})
    merged = join(sources, classes.tables, np.array(same, np.int64))
    names = [f"../{n}.jpg" for n in range(len(merged.firsts))]
    differing = write_joined(tmp_path / "out.json", merged, classes, names)
    return differing, (tmp_path / "out.json").read_text(encoding="utf-8")


def test_fields_go_over_and_ids_are_anew(tmp_path: Path) -> None:
    one = {"images": [record_of(1)], "annotations": ["ODD"], "categories": [{"id": 1, "name": "x", "keypoints": ["a"]}]}
    two = {**one, "images": [record_of(1, taken="noon")], "categories": [{"id": 1, "name": "y"}]}
    _, text = write(tmp_path, one, two, same=[0, 1])
    assert ODD in text, "an object whose ids stay is the same to the letter"
    merged = json.loads(text)
    first, second = merged["annotations"]
    assert second == {**json.loads(ODD), "id": 2, "image_id": 2, "category_id": 2}
    assert first == json.loads(ODD)
    assert '"attributes":{"a": [1.10]}' in text
    assert merged["categories"] == [{"id": 1, "name": "x", "keypoints": ["a"]}, {"id": 2, "name": "y"}]
    assert merged["images"] == [
        {**record_of(1), "file_name": "../0.jpg", "labeled_category_ids": [1]},
        {**record_of(2, taken="noon"), "file_name": "../1.jpg", "labeled_category_ids": [2]},
    ]
    assert len(COCO(tmp_path / "out.json").anns) == 2


def test_labeled_classes_are_written_only_if_some_are_missing(tmp_path: Path) -> None:
    one = {"images": [record_of(1, labeled_category_ids=[1])], "categories": [{"id": 1, "name": "x"}]}
    two = {"images": [record_of(1)], "categories": [{"id": 1, "name": "x"}, {"id": 2, "name": "y"}]}
    _, text = write(tmp_path, one, two, same=[0, 1])
    assert [image.get("labeled_category_ids") for image in json.loads(text)["images"]] == [[1], None]


def test_united_images_keep_the_first_s_fields_and_gain_the_other_s(tmp_path: Path) -> None:
    shared = {"categories": [{"id": 1, "name": "x"}]}
    one = {**shared, "images": [record_of(1, camera="left", location={"x": 1})]}
    two = {**shared, "images": [record_of(9, camera="right", taken="noon")]}
    differing, text = write(tmp_path, one, two, same=[0, 0])
    assert differing == 1
    expected = {**record_of(1, camera="left", location={"x": 1}, taken="noon"), "file_name": "../0.jpg"}
    assert json.loads(text)["images"] == [expected]


def test_licences_keep_belonging_to_their_images(tmp_path: Path) -> None:
    shared: dict[str, Any] = {"categories": [{"id": 1, "name": "x"}]}
    lists = [[{"id": 1, "name": "CC"}, {"id": 2, "name": "MIT"}], [{"id": 1, "name": "BSD"}, {"id": 2, "name": "MIT"}]]
    images = [[record_of(1, license=1), record_of(2, license=2)], [record_of(3, license=1), record_of(4, license=2)]]
    contents = [{**shared, "images": i, "licenses": x} for i, x in zip(images, lists, strict=True)]
    _, text = write(tmp_path, *contents, same=[0, 1, 2, 3])
    merged = json.loads(text)
    names = {record["id"]: record["name"] for record in merged["licenses"]}
    assert [names[image["license"]] for image in merged["images"]] == ["CC", "MIT", "BSD", "MIT"]
    assert len(merged["licenses"]) == 3


def test_unwritable_outputs_are_named(tmp_path: Path) -> None:
    content = {"images": [record_of(1)], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "out.json").mkdir()
    with pytest.raises(DataError, match=r"out.json: cannot be written .*choose another path"):
        write(tmp_path, content, same=[0])


def test_licenses_that_are_no_ids_stay_as_they_are(tmp_path: Path) -> None:
    content = {"categories": [{"id": 1, "name": "x"}], "licenses": [{"id": 1, "name": "CC"}]}
    texts = ["1", '"MIT"', "null", "1.5", str(2**70), "9" * 5000, '{"id":1}', "7"]
    images = [record_of(number + 1, license=f"license {number}") for number in range(len(texts))]
    raw = json.dumps({**content, "images": images})
    for number, text in enumerate(texts):
        raw = raw.replace(f'"license {number}"', text)
    _, merged = write(tmp_path, raw, same=list(range(len(texts))))
    assert [line.partition('"license":')[2].partition(',"id":')[0] for line in merged.splitlines()[1:9]] == texts


def test_many_licenses(tmp_path: Path) -> None:
    licenses = [{"id": number, "name": str(number)} for number in range(1, 10_001)]
    content = {"categories": [{"id": 1, "name": "x"}], "images": [record_of(1, license=10_000)], "licenses": licenses}
    started = perf_counter()
    _, text = write(tmp_path, content, content, same=[0, 0])
    assert perf_counter() - started < 10
    assert json.loads(text)["licenses"] == licenses
