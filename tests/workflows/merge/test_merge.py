"""``tldet merge``: real and generated data sets as one, number for number; what is wrong is one line."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pycocotools.coco import COCO

from benchmarks.annotations import IMAGES, write_annotations
from tldet.cli.main import main
from tldet.data.index import AnnotationIndex
from tldet.data.layouts import find_layout
from tldet.workflows.merge.merge import merge

Coco = dict[str, Any]


def only(whole: Coco, classes: list[str], images: list[Any], ids: dict[str, int] | None = None) -> Coco:
    """The given classes of the given images of a COCO JSON, under other category ids."""
    kept = [record for record in whole["categories"] if record["name"] in classes]
    new = {record["id"]: (ids or {}).get(record["name"], record["id"]) for record in kept}
    ids_of_images = {image["id"] for image in images}
    objects = [a for a in whole["annotations"] if a["category_id"] in new and a["image_id"] in ids_of_images]
    return {
        "images": images,
        "annotations": [{**a, "category_id": new[a["category_id"]]} for a in objects],
        "categories": [{**record, "id": new[record["id"]]} for record in kept],
    }


def save(path: Path, content: Coco) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def by_image(content: Coco, folder: Path) -> Counter[Any]:
    """Objects as (image, class name, box), however they are numbered."""
    files = {i["id"]: (folder / i["file_name"]).resolve().name for i in content["images"]}
    names = {c["id"]: c["name"] for c in content["categories"]}
    return Counter((files[a["image_id"]], names[a["category_id"]], tuple(a["bbox"])) for a in content["annotations"])


@pytest.fixture
def bccd(shared: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """Blood cells as two teams would have them: red cells of images 0-119, white ones of 100-204; 20 are shared."""
    folder = shared / "data" / "bccd"
    whole = json.loads((folder / "coco" / "train.json").read_text())
    red = save(tmp_path / "red.json", only(whole, ["RBC", "Platelets"], whole["images"][:120]))
    ids = {"WBC": 1, "Platelets": 2}
    white = save(tmp_path / "white.json", only(whole, ["WBC", "Platelets"], whole["images"][100:], ids))
    return red, white, folder / "JPEGImages"


def test_blood_cells_of_two_teams(bccd: tuple[Path, Path, Path], tmp_path: Path) -> None:
    red, white, images = bccd
    report = merge([red, white], out=tmp_path / "out", images=[images])
    merged = json.loads((tmp_path / "out" / "train.json").read_text())
    before = [json.loads(path.read_text()) for path in (red, white)]
    assert (len(merged["images"]), report.splits[0].merged_images) == (205, 20)
    assert sum(len(one["annotations"]) for one in before) == len(merged["annotations"]) + report.splits[0].duplicates
    expected = by_image(before[0], images) | by_image(before[1], images)
    assert by_image(merged, tmp_path / "out") == expected
    duplicates = by_image(before[0], images) & by_image(before[1], images)
    assert report.splits[0].duplicates == duplicates.total() > 0
    assert [c["name"] for c in merged["categories"]] == ["RBC", "WBC", "Platelets"]
    assert Counter(tuple(i.get("labeled_category_ids", ["all"])) for i in merged["images"]) == {
        (1, 3): 100,
        ("all",): 20,
        (2, 3): 85,
    }
    assert [(r.name, r.labeled_images) for r in report.classes] == [("RBC", 120), ("WBC", 105), ("Platelets", 205)]
    assert sum(r.objects for r in report.classes) == len(merged["annotations"])
    assert {(c.old_id, c.old_name, c.new_id) for c in report.changed_categories} == {(1, "WBC", 2), (2, "Platelets", 3)}
    assert (
        json.loads((tmp_path / "out" / "merge_report.json").read_text())["splits"][0]["duplicates"]
        == duplicates.total()
    )


def test_tools_of_the_field_read_it(bccd: tuple[Path, Path, Path], tmp_path: Path) -> None:
    red, white, images = bccd
    report = merge([red, white], out=tmp_path / "out", images=[images])
    layout = find_layout(tmp_path / "out")
    assert (layout.train.annotations, layout.val, layout.test) == (tmp_path / "out" / "train.json", None, None)
    coco, index = COCO(layout.train.annotations), AnnotationIndex.load(layout.train.annotations)
    assert len(coco.anns) == len(index.labels) == report.splits[0].objects
    assert len(coco.imgs) == len(index) == 205
    assert all((layout.train.images / name).is_file() for name in index.file_names)
    assert not index.notes


def test_masks_and_crowds_go_over(shared: Path, tmp_path: Path) -> None:
    """COCO cut in two by class, the even category ids and the odd ones on the same images: merged it is itself."""
    folder = shared / "data" / "coco_mini"
    whole = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    names = [record["name"] for record in whole["categories"]]
    parts = [save(tmp_path / f"{n}.json", only(whole, names[n::2], whole["images"])) for n in (0, 1)]
    report = merge(parts, out=tmp_path / "out", images=[folder / "val2017"])
    merged = json.loads((tmp_path / "out" / "train.json").read_text())
    by_id = {a["id"]: a for a in merged["annotations"]}
    assert by_id == {a["id"]: a for a in whole["annotations"]}
    assert merged["categories"] == whole["categories"]
    assert not any("labeled_category_ids" in image for image in merged["images"])
    assert (report.splits[0].duplicates, report.changed_categories) == (0, ())


@pytest.fixture
def twin(digits: Path, tmp_path: Path) -> Path:
    """A folder with copies of the digits' train images, every other digit labeled."""
    for part in ("train", "valid"):
        shutil.copytree(digits / part, tmp_path / "twin" / part)
        path = tmp_path / "twin" / part / "_annotations.coco.json"
        whole = json.loads(path.read_text())
        save(path, only(whole, [str(n) for n in range(0, 10, 2)], whole["images"]))
    return tmp_path / "twin"


def test_parts_of_folders_stay_apart_and_copies_are_one(digits: Path, twin: Path, tmp_path: Path) -> None:
    report = merge([twin, digits], out=tmp_path / "out", copy=True)
    layout = find_layout(tmp_path / "out")
    counts = {"train": (layout.train, 16), "val": (layout.val, 6), "test": (layout.test, 6)}
    for part, (split, images) in counts.items():
        assert split is not None
        merged, before = json.loads(split.annotations.read_text()), "valid" if part == "val" else part
        whole = json.loads((digits / before / "_annotations.coco.json").read_text())
        assert len(merged["images"]) == images == len(list((tmp_path / "out" / "images" / part).glob("*/*")))
        assert by_image(merged, tmp_path / "out") == by_image(whole, digits / before)
        assert {c["name"]: c["id"] for c in merged["categories"]} == {c["name"]: c["id"] for c in whole["categories"]}
    rows = {row.split: row for row in report.splits}
    assert [rows[part].merged_images for part in ("train", "val", "test")] == [16, 6, 0]
    total = sum(row.objects for row in report.inputs)
    assert total == sum(row.objects + row.duplicates for row in report.splits)
    shutil.rmtree(twin)
    index = AnnotationIndex.load(layout.train.annotations)
    assert all((layout.train.images / name).is_file() for name in index.file_names)


def test_images_in_training_and_validation_are_reported(digits: Path, twin: Path, tmp_path: Path) -> None:
    """Its valid part goes to train as a JSON of its own: six images of val are trained on."""
    inputs = [digits, twin / "valid" / "_annotations.coco.json"]
    report = merge(inputs, out=tmp_path / "out")
    assert report.notes[-1] == "6 images are both in train.json and in val.json"


def test_irregularities_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name, content in (("a.jpg", b"a"), ("b.jpg", b"b")):
        (tmp_path / name).write_bytes(content)
    images = [{"id": n, "file_name": name, "width": 60, "height": 40} for n, name in enumerate(("a.jpg", "b.jpg"))]
    box = {"bbox": [0, 0, 9, 9], "id": 1, "image_id": 0}
    red: Coco = {"images": images, "annotations": [{**box, "category_id": 0}]}
    red["categories"] = [{"id": 0, "name": "cell"}]
    white = json.loads(json.dumps(red))
    white["categories"] = [{"id": 0, "name": "Cells", "supercategory": "x"}, {"id": 1, "name": "ring"}]
    white["images"][1] |= {"labeled_category_ids": [1], "taken": "noon"}
    white["annotations"].append({**box, "image_id": 1, "category_id": 0})
    white["videos"] = []
    paths = [save(tmp_path / f"{name}.json", one) for name, one in (("red", red), ("white", white))]
    with caplog.at_level(logging.INFO):
        report = merge(paths, out=tmp_path / "out")
    assert report.notes == (
        "classes 'cell' and 'Cells' are not merged; to merge them, use --aliases",
        f"{paths[1]} has no object of ring; its images count as annotated for them",
        f"{paths[1]}: 1 annotation with the id of an earlier one: renumbered (annotation 1)",
        f"{paths[1]}: videos not copied",
        "train.json: 2 images are in several inputs; kept once",
        "train.json: 2 objects got a new id (duplicate, missing or 0)",
        f"train.json: 1 object is of classes that are not annotated on their image (first: annotation 1 of {paths[1]})",
    )
    assert all(note in caplog.messages for note in report.notes)
    save(tmp_path / "aliases.json", {"cell": ["Cells"]})
    report = merge(paths, out=tmp_path / "joined", aliases=tmp_path / "aliases.json")
    assert "cell: further category fields differ; those of the first input are kept" in report.notes
    assert report.splits[0].duplicates == 1
    assert [(row.name, row.objects) for row in report.classes] == [("cell", 2), ("ring", 0)]


def test_a_class_merged_from_several_reports_missing_ones(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).write_bytes(name.encode())
    for name, classes in (("a", ["car", "van"]), ("b", ["van"])):
        image = {"id": 1, "file_name": f"{name}.jpg", "width": 60, "height": 40}
        records = [{"id": n, "name": one} for n, one in enumerate(classes)]
        save(tmp_path / f"{name}.json", {"images": [image], "annotations": [], "categories": records})
    save(tmp_path / "aliases.json", {"vehicle": ["car", "van"]})
    inputs = [tmp_path / "a.json", tmp_path / "b.json"]
    report = merge(inputs, out=tmp_path / "out", aliases=tmp_path / "aliases.json")
    expected = f"class 'vehicle' combines several classes of {inputs[0]}; {inputs[1]} lacks some of these"
    assert any(note.startswith(expected) for note in report.notes)


def message(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main(["merge", *(str(one) for one in arguments)])
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("tldet merge: error: ")
    return lines[0]


def test_errors_are_one_line(digits: Path, twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ("--out", tmp_path / "out")
    valid = twin / "valid" / "_annotations.coco.json"
    assert "specify two or more datasets" in message(capsys, digits, *out)
    assert "nowhere: no such file" in message(capsys, digits, tmp_path / "nowhere", *out)
    assert "occurs twice in the inputs" in message(capsys, digits, digits, *out)
    assert "occurs twice in the inputs" in message(capsys, digits, digits / "valid" / valid.name, *out)
    (tmp_path / "empty").mkdir()
    assert "empty: contains no COCO JSON" in message(capsys, digits, tmp_path / "empty", *out)
    twice = message(capsys, digits, valid, "--images", "a", "--images", "b", *out)
    assert "--images is given 2 times for 1 annotation file" in twice
    assert "gone: no such folder" in message(capsys, digits, valid, "--images", tmp_path / "gone", *out)
    (twin / "valid" / "00003.jpg").unlink()
    assert f"1 of 6 images of {valid} missing: 00003.jpg" in message(capsys, digits, valid, *out)
    assert not (tmp_path / "out").exists(), "nothing is written before all is read"
    whole = json.loads(valid.read_text())
    whole["images"] = [image for image in whole["images"] if image["file_name"] != "00003.jpg"]
    whole["annotations"] = []
    whole["images"][3] |= {"file_name": whole["images"][0]["file_name"], "width": 127}
    save(valid, whole)
    line = message(capsys, digits, valid, *out)
    assert f"{valid} states 127 x 96 for image" in line
    assert "which is the same image; correct one of them" in line


def test_an_earlier_merge_is_spared(
    digits: Path, twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["merge", str(digits), str(twin), "--out", str(out)]) == 0
    assert "merged" in capsys.readouterr().out
    assert "out: contains an earlier merge; choose another --out" in message(capsys, digits, twin, "--out", out)
    assert "twin: is not empty; choose another --out" in message(capsys, digits, twin, "--out", twin)


def test_stopping_explains_how_to_start_over(
    digits: Path, twin: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tldet.workflows.merge.merge.copy_image", stop)
    assert main(["merge", str(digits), str(twin), "--out", str(tmp_path / "out"), "--copy"]) == 130
    assert f"interrupted; remove {tmp_path / 'out'}" in capsys.readouterr().err


@pytest.mark.slow
def test_as_large_as_coco(tmp_path: Path) -> None:
    """Two data sets of 118,287 images (a tenth of them shared) and 860,000 objects each need less than 3.5 GB."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_annotations(tmp_path / name / "train.json", IMAGES)
        for number in range(1, IMAGES + 1):
            content = f"{number}" if number % 10 == 0 else f"{number} of {name}"
            (tmp_path / name / f"{number:012d}.jpg").write_bytes(content.encode())
    code = (
        "import json, sys; from tldet.workflows.merge.merge import merge; from benchmarks.child import peak_mb;"
        "part = merge(sys.argv[1:3], out=sys.argv[3]).splits[0];"
        "print(json.dumps([part.images, part.merged_images, part.objects + part.duplicates, peak_mb()]))"
    )
    command = [sys.executable, "-c", code, *(str(tmp_path / name / "train.json") for name in ("a", "b"))]
    done = subprocess.run([*command, str(tmp_path / "out")], capture_output=True, text=True, check=True)
    images, united, objects, peak = json.loads(done.stdout.splitlines()[-1])
    assert (images, united) == (2 * IMAGES - IMAGES // 10, IMAGES // 10)
    assert objects == 2 * len(AnnotationIndex.load(tmp_path / "a" / "train.json").labels)
    assert peak < 3500


def test_repairs_on_reading_are_written(tmp_path: Path) -> None:
    """A derived box, a new id and classes without Roboflow's supercategory; then the merged file needs no repair."""
    images = [{"id": 1, "file_name": "a.jpg", "width": 60, "height": 40}]
    box = {"image_id": 1, "category_id": 1, "id": 1, "area": 50, "iscrowd": 0}
    objects = [{**box, "bbox": [1, 1, 9, 9]}, {**box, "segmentation": [[10, 10, 30, 10, 30, 20]]}]
    categories = [{"id": 0, "name": "x", "supercategory": "none"}, {"id": 1, "name": "x", "supercategory": "x"}]
    inputs = []
    for name in "pq":
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.jpg").write_bytes(name.encode())
        whole: Coco = {"images": images, "annotations": objects, "categories": categories}
        inputs.append(save(tmp_path / name / "some.json", whole))
    inputs[1].write_bytes(inputs[1].read_text().encode("utf-16"))
    report = merge(inputs, out=tmp_path / "out")
    for path in inputs:
        assert f"{path}: 1 annotation with the id of an earlier one: renumbered (annotation 1)" in report.notes
        assert any(f"{path}: 1 missing box derived" in note for note in report.notes)
        assert any(f"{path}: category 0 'x' dropped" in note for note in report.notes)
    index = AnnotationIndex.load(tmp_path / "out" / "train.json")
    assert (index.notes, index.class_names) == ((), ("x",))
    assert index.boxes.tolist() == [[1, 1, 10, 10], [10, 10, 30, 20]] * 2
    assert sorted(index.annotation_ids.tolist()) == [1, 2, 3, 4]
