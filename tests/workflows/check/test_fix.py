"""``tldet check --fix``: what is determined is restored exactly, the rest is listed, the source stays as it is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.workflows.check.broken import box, every, fractions, put, turned, write
from tests.workflows.check.damage import CODES, UNDECIDED, damaged
from tldet.cli.main import main
from tldet.errors import ConfigError, OutputError
from tldet.workflows.check.check import check


def test_damaged_annotations_are_restored_exactly(shared: Path, tmp_path: Path) -> None:
    source = shared / "data" / "bccd" / "coco" / "train.json"
    whole = json.loads(source.read_text())
    values, done = damaged(whole)
    broken, out = tmp_path / "broken.json", tmp_path / "fixed.json"
    broken.write_text(json.dumps(values))
    before = broken.read_bytes()
    report = check(broken, images=shared / "data" / "bccd" / "JPEGImages", fix=out, fast=True)
    assert broken.read_bytes() == before
    found = json.loads(out.read_text())
    undecided = {key for kind in UNDECIDED for key in done[kind]}
    assert len(undecided) == 40
    assert all(len(done[kind]) >= 10 for kind in done), {kind: len(ids) for kind, ids in done.items()}
    restored = {record["id"]: record for record in found["annotations"]}
    for record in whole["annotations"]:
        if record["id"] not in undecided:
            assert restored[record["id"]] == record
    assert restored.keys() == {record["id"] for record in whole["annotations"]}
    assert (found["images"], found["categories"]) == (whole["images"], whole["categories"])
    assert report.repaired is not None
    listed = {(one.code, one.annotation) for one in report.repaired.left}
    assert {(CODES[kind], key) for kind in UNDECIDED for key in done[kind]} <= listed
    assert not any(one.severity == "error" and one.annotation not in undecided for one in report.repaired.left)


def test_changes_are_listed_with_the_values_before_and_after(tmp_path: Path) -> None:
    write(tmp_path / "data", box(4, 9, 9, -24, 22))
    out = tmp_path / "out" / "fixed.json"
    assert main(["check", str(tmp_path / "data"), "--fix", str(out)]) == 1
    listed = json.loads((tmp_path / "out" / "fixed_changes.json").read_text())
    file = str(tmp_path / "data" / "instances.json")
    change = {"file": file, "code": "box-negative", "section": "annotations", "id": 5}
    assert listed["changes"] == [{**change, "before": {"bbox": [9, 9, -24, 22]}, "after": {"bbox": [9, 9, 24, 22]}}]
    assert [one for one in listed["left"] if one["severity"] != "info"] == []
    assert main(["check", str(out), "--images", str(tmp_path / "data" / "images")]) == 0


def test_boxes_before_an_exif_rotation_are_turned_upright(tmp_path: Path) -> None:
    """The same objects, annotated on the stored and on the upright image, for all four rotations."""
    upright = [[4, 6, 20, 18], [9, 40, 24, 22], [14, 70, 28, 24]]  # in 64 x 96
    stored = {  # in 96 x 64
        5: [[y, x, h, w] for x, y, w, h in upright],
        6: [[y, 64 - x - w, h, w] for x, y, w, h in upright],
        7: [[96 - y - h, 64 - x - w, h, w] for x, y, w, h in upright],
        8: [[96 - y - h, x, h, w] for x, y, w, h in upright],
    }
    for orientation, boxes in stored.items():
        data, out = tmp_path / str(orientation), tmp_path / f"{orientation}.json"
        write(data, turned(orientation, (96, 64), boxes))
        report = check(data, fix=out)
        assert "image-rotated" in {one.code for one in report.findings}
        found = json.loads(out.read_text())
        assert [one["bbox"] for one in found["annotations"] if one["image_id"] == 1] == upright
        assert (found["images"][0]["width"], found["images"][0]["height"]) == (64, 96)


def test_what_is_not_determined_stays(tmp_path: Path) -> None:
    """A box may be reversed in two ways, and fractions may begin at the corner or the center."""
    path = write(tmp_path / "a", box(4, 40, 9, -24, 22))
    check(tmp_path / "a", fix=tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == json.loads(path.read_text())
    path = write(tmp_path / "b", every("annotations", bbox=lambda one: [0.5, 0.5, 0.2, 0.2]))
    report = check(tmp_path / "b", fix=tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == json.loads(path.read_text())
    assert report.repaired is not None
    assert "box-normalized" in {one.code for one in report.repaired.left}


def test_fractions_are_restored(tmp_path: Path) -> None:
    expected = json.loads(write(tmp_path / "sound").read_text())
    write(tmp_path / "data", every("annotations", bbox=fractions))
    check(tmp_path / "data", fix=tmp_path / "fixed.json")
    assert json.loads((tmp_path / "fixed.json").read_text()) == expected


def test_the_source_is_never_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "data", put("annotations", 0, id=2))
    with pytest.raises(OutputError, match="is an input"):
        check(tmp_path / "data", fix=path)
    with pytest.raises(OutputError, match="is an input"):
        check(path, json=path)
    assert main(["check", str(path), "--fix", str(path)]) == 2


def test_other_formats_are_converted_first(tmp_path: Path) -> None:
    from tests.data.formats.made import make

    source = make(tmp_path / "source", "voc")
    with pytest.raises(ConfigError, match="tldet convert"):
        check(source, fix=tmp_path / "out.json")
