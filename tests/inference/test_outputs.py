"""COCO JSON, CSV, YOLO labels and crops of a prediction run, and what it must not overwrite."""

from __future__ import annotations

import csv
import errno
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from tests.inference.stand import Stand
from tldet.cli.main import main
from tldet.coco.reader import read_coco
from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.inference.writer import VideoWriter
from tldet.system import output
from tldet.workflows.predict.outputs import OutputPaths, folder_name
from tldet.workflows.predict.predict import predict

BOXES = [[10.4, 4.0, 20.0, 9.6], [0.0, 0.0, 40.0, 30.0], [39.5, 29.5, 40.0, 30.0]]
ALL = ("json", "coco", "csv", "yolo", "crops", "out")


@pytest.fixture
def stand(monkeypatch: pytest.MonkeyPatch) -> Stand:
    found = Stand(BOXES, [1, 0, 2])
    monkeypatch.setattr("tldet.workflows.predict.predict.load", lambda *_, **__: found)
    return found


def image(path: Path, size: tuple[int, int] = (30, 40)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8), size[::-1])
    assert cv2.imwrite(str(path), pixels[..., ::-1])
    return path


def film(path: Path, frames: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with VideoWriter(path, Fraction(25)) as writer:
        for number in range(frames):
            writer.write(np.full((30, 40, 3), 9 * number % 256, np.uint8))
    return path


def outputs(folder: Path, names: tuple[str, ...] = ALL) -> dict[str, Any]:
    return {name: folder / name for name in names}


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_all_outputs_of_images_and_video(stand: Stand, tmp_path: Path) -> None:
    given = [
        image(tmp_path / "in" / "x" / "a.png"),
        image(tmp_path / "in" / "a.jpg"),
        film(tmp_path / "in" / "v.mp4", 3),
    ]
    summary = predict("c.pt", [tmp_path / "in"], **outputs(tmp_path / "o"))
    order = [given[1], *(f"{given[2]}#{number}" for number in range(3)), given[0]]
    out = tmp_path / "o"
    records = json.loads((out / "json").read_text())
    assert records == summary.records
    assert [(r["image_id"], r["file_name"]) for r in records[::3]] == [(n, str(p)) for n, p in enumerate(order, 1)]
    with (out / "csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15
    for row, record in zip(rows, records, strict=True):
        assert [float(row[name]) for name in ("x", "y", "width", "height")] == record["bbox"]
        assert float(row["score"]) == record["score"]
        assert {name: row[name] for name in ("file_name", "category_name")}.items() <= record.items()
        assert (int(row["image_id"]), int(row["category_id"])) == (record["image_id"], record["category_id"])
    assert files(out / "yolo") == [
        "classes.txt", "labels/a.txt", *(f"labels/v_00000{number}.txt" for number in range(3)), "labels/x/a.txt",
    ]  # fmt: skip
    assert (out / "yolo" / "classes.txt").read_text() == "cat\na/b\na_b\n"
    assert (out / "yolo" / "labels" / "x" / "a.txt").read_text().splitlines() == [
        "1 0.380000 0.226667 0.240000 0.186667",
        "0 0.500000 0.500000 1.000000 1.000000",
        "2 0.993750 0.991667 0.012500 0.016667",
    ]
    stems = ["a_%03d.jpg", *(f"v_00000{number}_%03d.jpg" for number in range(3)), "x/a_%03d.png"]
    folders = {"a_b": 0, "cat": 1, "a_b_2": 2}
    assert files(out / "crops") == sorted(f"{name}/{stem % n}" for name, n in folders.items() for stem in stems)
    whole = read_image(given[0])
    np.testing.assert_array_equal(read_image(out / "crops" / "a_b" / "x" / "a_000.png"), whole[4:10, 10:20])
    np.testing.assert_array_equal(read_image(out / "crops" / "cat" / "x" / "a_001.png"), whole)
    np.testing.assert_array_equal(read_image(out / "crops" / "a_b_2" / "x" / "a_002.png"), whole[29:30, 39:40])


def test_the_coco_dataset_is_read_like_any_other(stand: Stand, tmp_path: Path) -> None:
    image(tmp_path / "a.png")
    stand.class_names, boxes = ("cat", "dog", "cow"), stand.boxes
    predict("c.pt", [tmp_path / "a.png"], coco=tmp_path / "coco.json")
    read = read_coco(tmp_path / "coco.json")
    assert [(one.id, one.file_name) for one in read.images] == [(1, str(tmp_path / "a.png"))]
    assert {one.id: one.name for one in read.categories} == {7: "cat", 3: "dog", 5: "cow"}
    raw = json.loads((tmp_path / "coco.json").read_text())
    assert raw["images"][0] | {"width": 40, "height": 30} == raw["images"][0]
    assert [one["score"] for one in raw["annotations"]] == pytest.approx([0.9, 0.7, 0.5])
    assert [one["id"] for one in raw["annotations"]] == [1, 2, 3]
    assert raw["annotations"][1]["area"] == 1200
    assert len(read.objects.boxes) == len(boxes)


def test_an_image_without_detections_is_in_the_outputs(stand: Stand, tmp_path: Path) -> None:
    stand.boxes, stand.labels = stand.boxes[:0], stand.labels[:0]
    predict("c.pt", [image(tmp_path / "a.png")], **outputs(tmp_path / "o"))
    assert (tmp_path / "o" / "yolo" / "labels" / "a.txt").read_text() == ""
    assert len(json.loads((tmp_path / "o" / "coco").read_text())["images"]) == 1
    assert (tmp_path / "o" / "csv").read_text().splitlines() == [
        "file_name,image_id,category_id,category_name,score,x,y,width,height"
    ]


def test_crops_of_a_reduced_jpeg_have_full_size(stand: Stand, tmp_path: Path) -> None:
    stand.bounds = (30, 40)
    path = image(tmp_path / "a.jpg", (240, 320))
    assert stand.open(path).factor == 8
    predict("c.pt", [path], crops=tmp_path / "crops", yolo=tmp_path / "yolo")
    assert read_image(tmp_path / "crops" / "cat" / "a_001.jpg").shape == (30, 40, 3)
    assert (tmp_path / "yolo/labels/a.txt").read_text().splitlines()[1] == "0 0.062500 0.062500 0.125000 0.125000"


def test_names_are_distinct_and_valid(stand: Stand, tmp_path: Path) -> None:
    long = "\u732b" * 80  # 240 bytes
    for name in ("a.png", "a.jpg", "b/a.png", "v_000000.png", f"{long}.png", f"{long}.jpg"):
        image(tmp_path / "in" / name)
    film(tmp_path / "in" / "v.mp4", 1)
    inputs = [tmp_path / "in" / "b", tmp_path / "in" / "*.png", tmp_path / "in" / "*.jpg", tmp_path / "in" / "v.mp4"]
    predict("c.pt", inputs, yolo=tmp_path / "yolo", crops=tmp_path / "crops")
    labels = files(tmp_path / "yolo" / "labels")
    assert len(labels) == 7
    assert {"a.txt", "a_2.txt", "a_3.txt", "v_000000.txt", "v_000000_2.txt"} <= set(labels)
    assert len(files(tmp_path / "crops")) == 21


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat", "cat"), ("red blood cell", "red blood cell"), ("\u732b", "\u732b"), ("a/b\\c:d", "a_b_c_d"),
        ("..", "_"), ("", "_"), (" ", "_"), ("a.", "a"), ("NUL", "_NUL"), ("com1.x", "_com1.x"),
        ("a\0\n\x7fb", "a___b"), ("\ud800", "_"), ("x" * 300, "x" * 50),
        ("/etc/passwd", "_etc_passwd"), ("../up", ".._up"),
    ],
)  # fmt: skip
def test_class_names_as_folders(name: str, expected: str) -> None:
    assert folder_name(name) == expected


@pytest.mark.parametrize("name", ALL)
def test_an_earlier_output_is_replaced_only_with_the_option(stand: Stand, tmp_path: Path, name: str) -> None:
    path, given = image(tmp_path / "a.png"), outputs(tmp_path / "o", (name,))
    predict("c.pt", [path], **given)
    before = {one: (tmp_path / "o" / one).read_bytes() for one in files(tmp_path / "o")}
    stand.boxes, stand.labels = stand.boxes[:1] - 3, stand.labels[:1]
    with pytest.raises(DataError, match=r"(already exists|is not empty); .*--overwrite"):
        predict("c.pt", [path], **given)
    assert {one: (tmp_path / "o" / one).read_bytes() for one in files(tmp_path / "o")} == before
    predict("c.pt", [path], overwrite=True, **given)
    assert {one: (tmp_path / "o" / one).read_bytes() for one in files(tmp_path / "o")} != before


def test_other_files_in_the_drawing_folder_are_no_hindrance(stand: Stand, tmp_path: Path) -> None:
    image(tmp_path / "o" / "other.png")
    predict("c.pt", [image(tmp_path / "a.png")], out=tmp_path / "o")
    assert files(tmp_path / "o") == ["a.png", "other.png"]
    with pytest.raises(DataError, match=r"other\.png: already exists"):
        predict("c.pt", [image(tmp_path / "b" / "other.png")], out=tmp_path / "o")


@pytest.mark.parametrize("name", ALL[:3])
def test_an_input_is_never_overwritten(stand: Stand, tmp_path: Path, name: str) -> None:
    path = image(tmp_path / "a.png")
    (tmp_path / "link").symlink_to(path)
    before = path.read_bytes()
    for target in (path, tmp_path / "link", tmp_path / "." / "x" / ".." / "a.png"):
        with pytest.raises(DataError, match="is an input"):
            predict("c.pt", [path], overwrite=True, **{name: target})
    with pytest.raises(DataError, match=r"c\.pt: is an input"):
        predict(tmp_path / "c.pt", [path], overwrite=True, **{name: tmp_path / "c.pt"})
    for folder in ("yolo", "crops"):
        with pytest.raises(DataError, match="contains an input"):
            predict("c.pt", [path], overwrite=True, **{folder: tmp_path})
    with pytest.raises(DataError, match="is given for two outputs"):
        predict("c.pt", [path], csv=tmp_path / "x", **{name if name != "csv" else "coco": tmp_path / "x"})
    assert path.read_bytes() == before


@pytest.mark.parametrize("other", ["o/a.png", "y/classes.txt", "o/../y"])
def test_a_file_of_one_output_is_not_replaced_by_another(stand: Stand, tmp_path: Path, other: str) -> None:
    path = image(tmp_path / "a.png")
    with pytest.raises(DataError, match="is given for two outputs"):
        predict("c.pt", [path], out=tmp_path / "o", yolo=tmp_path / "y", json=tmp_path / other)


def test_one_output_that_cannot_be_written_does_not_lose_the_others(stand: Stand, tmp_path: Path) -> None:
    path, bad = image(tmp_path / "a.png"), tmp_path / "j"
    bad.symlink_to("/dev/full")
    with pytest.raises(DataError, match=r"/j: cannot be written"):
        predict("c.pt", [path], json=bad, csv=tmp_path / "c.csv", coco=tmp_path / "coco.json")
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 4
    assert len(json.loads((tmp_path / "coco.json").read_text())["annotations"]) == 3


def full(*_: Any) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("name", ALL)
def test_a_full_disk_leaves_the_earlier_output(
    stand: Stand, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, given = image(tmp_path / "a.png"), outputs(tmp_path / "o", (name,))
    predict("c.pt", [path], **given)
    before = {one: (tmp_path / "o" / one).read_bytes() for one in files(tmp_path / "o")}
    assert before
    stand.boxes, stand.labels = stand.boxes[:2] - 3, stand.labels[:2]
    monkeypatch.setattr(output, "_replace", full)
    with pytest.raises(DataError, match=r"cannot be written \(No space left on device\); free some disk space"):
        predict("c.pt", [path], overwrite=True, **given)
    assert {one: (tmp_path / "o" / one).read_bytes() for one in files(tmp_path / "o")} == before


class Full:
    """A container of PyAV on a full disk."""

    def __init__(self, container: Any) -> None:
        self.container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self.container, name)

    def mux(self, packet: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("moment", ["frames", "end"])
def test_a_full_disk_leaves_the_earlier_video(
    stand: Stand, tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    video, given = film(tmp_path / "v.mp4", 3), outputs(tmp_path / "o", ("out", "json"))
    predict("c.pt", [video], **given)
    before = (tmp_path / "o" / "out" / "v.mp4").read_bytes()
    if moment == "end":
        replace = output._replace
        monkeypatch.setattr(output, "_replace", lambda new, to: (full if to.suffix == ".mp4" else replace)(new, to))
    else:
        opened = av.open
        monkeypatch.setattr(
            "tldet.inference.writer.av.open", lambda *a, **k: Full(opened(*a, **k)) if "w" in a else opened(*a, **k)
        )
    with pytest.raises(DataError, match=r"v\.mp4: cannot be written \(No space left on device\)"):
        predict("c.pt", [video], overwrite=True, **given)
    assert (tmp_path / "o" / "out" / "v.mp4").read_bytes() == before
    assert files(tmp_path / "o" / "out") == ["v.mp4"]
    assert json.loads((tmp_path / "o" / "json").read_text()), "the results of the frames are written"


def test_the_command_writes_and_names_its_outputs(
    stand: Stand, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = image(tmp_path / "a.png")
    given = ["--json", "r.json", "--csv", "r.csv", "--coco", "c.json", "--yolo", "labels", "--crops", "crops"]
    given = [one if one.startswith("--") else str(tmp_path / one) for one in given]
    assert main(["predict", "c.pt", str(path), *given]) == 0
    reported = capsys.readouterr()
    assert "device cpu, precision fp32 (default); score threshold 0.3" in reported.err
    assert reported.out.startswith("1 image, 3 detections, ")
    assert all(one in reported.out for one in given if not one.startswith("--"))
    assert main(["predict", "c.pt", str(path), *given]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["predict", "c.pt", str(path), "--overwrite", *given]) == 0


def test_images_of_every_format_are_cropped(stand: Stand, tmp_path: Path) -> None:
    image(tmp_path / "in" / "a.png")
    for suffix in ("gif", "bmp", "webp", "tif"):
        Image.open(tmp_path / "in" / "a.png").save(tmp_path / "in" / f"b_{suffix}.{suffix}")
    predict("c.pt", [tmp_path / "in"], crops=tmp_path / "crops")
    crops = files(tmp_path / "crops" / "cat")
    assert crops == ["a_001.png", "b_bmp_001.bmp", "b_gif_001.png", "b_tif_001.tif", "b_webp_001.webp"]


@pytest.mark.parametrize("field", ["json", "coco", "csv", "yolo", "crops"])
def test_a_name_that_is_too_long_is_found_before_the_run(tmp_path: Path, field: str) -> None:
    paths = OutputPaths(**{field: tmp_path / ("a" * 300)})
    paths.check([], [], overwrite=False)
    with pytest.raises(DataError, match="File name too long"):
        paths.make_folders()
