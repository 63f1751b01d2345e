"""``tldet data get``: every source of the catalog and YAML files, from a local server with small archives."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tldet.cli.main import main
from tldet.coco.reader import read_coco
from tldet.data.split_paths import resolve_layout
from tldet.errors import ConfigError, DataError, DownloadError, OutputError
from tldet.workflows.get_data.convert import restricted
from tldet.workflows.get_data.get import RECEIPT_NAME, WORK, GetReport, get_data
from tldet.workflows.get_data.request import DataGetRequest
from tldet.workflows.get_data.sources import catalog, load_source

CATALOG = Path(load_source.__code__.co_filename).parent / "catalog"
SIZE = (40, 30)  # width and height of the images


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """Folder of a server, and its URL."""
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield folder, f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def encoded(kind: str = "JPEG", pixels: Any = None) -> bytes:
    file = io.BytesIO()
    image = Image.new("RGB", SIZE, (90, 40, 10)) if pixels is None else Image.fromarray(pixels)
    image.save(file, kind)
    return file.getvalue()


def packed(path: Path, entries: Mapping[str, bytes]) -> None:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name, content)
        return
    with tarfile.open(path, "w") as tar:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def coco(*names: str) -> bytes:
    images = [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names, 1)]
    boxes = [
        {"id": n, "image_id": n, "category_id": 18, "bbox": [1, 2, 10, 12], "area": 120.0}
        for n in range(1, len(names) + 1)
    ]
    objects = [{**one, "iscrowd": 0, "segmentation": [[1, 2, 11, 2, 11, 14]]} for one in boxes]
    categories = [{"id": 18, "name": "dog"}]
    return json.dumps(
        {"info": {"year": 2017}, "images": images, "annotations": objects, "categories": categories}
    ).encode()


def voc(name: str, label: str) -> bytes:
    corners = "".join(
        f"<{key}>{value}</{key}>" for key, value in zip(("xmin", "ymin", "xmax", "ymax"), (1, 1, 20, 10), strict=True)
    )
    size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>"
    box = f"<object><name>{label}</name><bndbox>{corners}</bndbox></object>"
    return f"<annotation><filename>{name}.jpg</filename>{size}{box}</annotation>".encode()


def voc_files(root: str, label: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for split, name in (("train", "a_1"), ("val", "a_2")):
        files |= {f"{root}/JPEGImages/{name}.jpg": encoded(), f"{root}/Annotations/{name}.xml": voc(name, label)}
        files[f"{root}/ImageSets/Main/{split}.txt"] = f"{name}\n".encode()
    return files


def balloon(split: str) -> dict[str, bytes]:
    outline = {"name": "polygon", "all_points_x": [2, 20, 20], "all_points_y": [3, 3, 25]}
    region = {"shape_attributes": outline, "region_attributes": {}}
    values = {
        f"{split}.jpg99": {"filename": f"{split}.jpg", "size": 99, "regions": {"0": region}, "file_attributes": {}}
    }
    return {
        f"balloon/{split}/via_region_data.json": json.dumps(values).encode(),
        f"balloon/{split}/{split}.jpg": encoded(),
    }


def penn_fudan() -> dict[str, bytes]:
    numbers = np.zeros(SIZE[::-1], np.uint8)
    numbers[5:20, 3:9], numbers[8:25, 20:31] = 1, 2
    files = {"readme.txt": b"text"}
    for name in ("F1", "F2"):
        image = encoded("PNG", np.full((*SIZE[::-1], 3), int(name[1]), np.uint8))
        files |= {f"PNGImages/{name}.png": image, f"PedMasks/{name}_mask.png": encoded("PNG", numbers)}
    return {f"PennFudanPed/{name}": content for name, content in files.items()}


def archives(name: str) -> dict[str, dict[str, bytes]]:
    """Content of the archives of a source, by file name."""
    annotations = {
        "annotations/instances_train2017.json": coco("1.jpg", "2.jpg"),
        "annotations/instances_val2017.json": coco("3.jpg"),
        "annotations/captions_val2017.json": b"{}",
    }
    whole = {"annotations_trainval2017.zip": annotations, "val2017.zip": {"val2017/3.jpg": encoded()}}
    return {
        "coco": {**whole, "train2017.zip": {f"train2017/{n}.jpg": encoded() for n in (1, 2)}},
        "coco-minitrain": {
            **whole,
            "coco_minitrain_25k.zip": {"coco_minitrain_25k/images/train2017/2.jpg": encoded(), "x/labels/2.txt": b"0"},
        },
        "voc": {"VOCtrainval_11-May-2012.tar": voc_files("VOCdevkit/VOC2012", "cat")},
        "penn-fudan": {"PennFudanPed.zip": penn_fudan()},
        "balloon": {"balloon_dataset.zip": {**balloon("train"), **balloon("val"), "__MACOSX/._x": b"x"}},
        "bccd": {"master.zip": voc_files("BCCD_Dataset-master/BCCD", "RBC")},
    }[name]


def local(name: str, served: tuple[Path, str]) -> Path:
    """Serve archives of a source, and return its YAML with their URLs and without its digests."""
    folder, url = served
    for file, entries in archives(name).items():
        packed(folder / file, entries)
    text = (CATALOG / f"{name}.yaml").read_text(encoding="utf-8")
    text = re.sub(r"\n *(md5|sha256|digest_source):.*", "", text)
    path = folder.parent / f"{name}.yaml"
    path.write_text(re.sub(r"url: \S*/([^/\s]+)", rf"url: {url}/\1", text), encoding="utf-8")
    return path


def fetched(name: str, served: tuple[Path, str], out: Path, **options: Any) -> GetReport:
    return get_data(str(local(name, served)), out=out, **options)


EXPECTED: dict[str, tuple[dict[str, int], dict[str, int], tuple[str, ...]]] = {
    "coco": ({"train": 2, "val": 1}, {"train": 2, "val": 1}, ("dog",)),
    "coco-minitrain": ({"train": 1, "val": 1}, {"train": 1, "val": 1}, ("dog",)),
    "voc": ({"train": 1, "val": 1}, {"train": 1, "val": 1}, ("cat",)),
    "penn-fudan": ({"": 2}, {"": 4}, ("pedestrian",)),
    "balloon": ({"train": 1, "val": 1}, {"train": 1, "val": 1}, ("balloon",)),
    "bccd": ({"train": 1, "val": 1}, {"train": 1, "val": 1}, ("RBC",)),
}


def test_the_catalog() -> None:
    assert sorted(EXPECTED) == catalog()
    names = DataGetRequest.__dataclass_fields__["name"].metadata["option"].help
    for name in catalog():
        source = load_source(name)
        assert source.title
        assert source.license
        assert source.homepage.startswith("http")
        assert name in names


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_source_is_converted_and_checked(name: str, served: tuple[Path, str], tmp_path: Path) -> None:
    out = tmp_path / "data" / name
    report = fetched(name, served, out)
    assert (report.images, report.objects, report.classes) == EXPECTED[name]
    receipt = json.loads((out / RECEIPT_NAME).read_text())
    assert receipt["license"] == report.license
    assert {file["compared_with"] for file in receipt["files"]} == {""}
    served_files = {hashlib.sha256(path.read_bytes()).hexdigest() for path in served[0].iterdir()}
    assert {file["sha256"] for file in receipt["files"]} == served_files
    folders = {"train2017", "val2017"} if name.startswith("coco") else {"images"}  # as in the configs of COCO
    assert {path.name for path in out.iterdir()} - {".lock"} == {"annotations", RECEIPT_NAME, *folders}
    layout = resolve_layout(out, None, None, None, tmp_path / "run", 0)
    assert layout.train.images.is_dir()
    with pytest.raises(OutputError, match="contains a downloaded dataset"):
        fetched(name, served, out)


def test_masks_and_boxes(served: tuple[Path, str], tmp_path: Path) -> None:
    fetched("penn-fudan", served, tmp_path / "p")
    found = json.loads((tmp_path / "p" / "annotations" / "instances.json").read_text())
    assert [one["bbox"] for one in found["annotations"]] == 2 * [[3, 5, 6, 15], [20, 8, 11, 17]]
    assert [one["area"] for one in found["annotations"]] == 2 * [90, 187]
    fetched("balloon", served, tmp_path / "b")
    (one,) = json.loads((tmp_path / "b" / "annotations" / "instances_train.json").read_text())["annotations"]
    assert one["segmentation"] == [[2, 3, 20, 3, 20, 25]]
    fetched("voc", served, tmp_path / "v")
    (one,) = json.loads((tmp_path / "v" / "annotations" / "instances_val.json").read_text())["annotations"]
    assert one["bbox"] == [0, 0, 20, 10], "VOC counts pixels from 1 and includes both corners"


def test_digests(served: tuple[Path, str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = fetched("balloon", served, tmp_path / "a")
    again = fetched("balloon", served, tmp_path / "b")
    assert first.files[0]["sha256"] == again.files[0]["sha256"]
    assert again.files[0]["compared_with"] == "the first download"
    path = local("balloon", served)
    packed(served[0] / "balloon_dataset.zip", {**balloon("train"), **balloon("val"), "new.txt": b"1"})
    with pytest.raises(
        DownloadError, match=r"but that of the first download was .* remove .*digests.*json and run the command again"
    ):
        get_data(str(path), out=tmp_path / "c")
    assert [one for one in (tmp_path / "c" / WORK).rglob("*") if one.is_file()] == []
    stated = hashlib.sha256((served[0] / "balloon_dataset.zip").read_bytes()).hexdigest()
    text = path.read_text().replace(".zip\n", f".zip\n    sha256: '{stated}'\n")
    path.write_text(text)
    assert get_data(str(path), out=tmp_path / "c").files[0]["compared_with"] == "the publisher"
    path.write_text(text.replace(stated, "0" * 64))
    with pytest.raises(DownloadError, match=rf"balloon_dataset.zip: its SHA-256 is {stated}, but expected 0000"):
        get_data(str(path), out=tmp_path / "d")


def test_an_interrupted_call_is_resumed(served: tuple[Path, str], tmp_path: Path) -> None:
    path = local("coco", served)
    packed(served[0] / "train2017.zip", {"../out.jpg": encoded()})
    with pytest.raises(DownloadError, match=r"train2017.zip: entry '\.\./out\.jpg'"):
        get_data(str(path), out=tmp_path / "c")
    assert not list(tmp_path.rglob("out.jpg"))
    kept = sorted(one.name for one in (tmp_path / "c" / WORK).glob("*.zip"))
    assert kept == ["0_annotations_trainval2017.zip", "1_val2017.zip", "2_train2017.zip"]
    packed(served[0] / "train2017.zip", archives("coco")["train2017.zip"])
    (tmp_path / "c" / WORK / "2_train2017.zip").unlink()
    for record in (tmp_path / "cache" / "digests").iterdir():
        record.unlink()
    (served[0] / "val2017.zip").unlink()  # it is there already
    report = get_data(str(path), out=tmp_path / "c", keep_archives=True)
    assert report.images == {"train": 2, "val": 1}
    assert sorted(one.name for one in (tmp_path / "c" / WORK).iterdir()) == kept


def test_missing_images_and_files(served: tuple[Path, str], tmp_path: Path) -> None:
    path = local("coco", served)
    packed(served[0] / "train2017.zip", {"train2017/1.jpg": encoded()})
    with pytest.raises(DataError, match=r"instances_train2017.json: 1 image missing, the first is 2\.jpg"):
        get_data(str(path), out=tmp_path / "a")
    path.write_text(path.read_text().replace("train: train2017", "train: elsewhere"))
    with pytest.raises(DataError, match="coco: the downloaded files do not contain elsewhere"):
        get_data(str(path), out=tmp_path / "b")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("")
    with pytest.raises(OutputError, match="full: is not empty"):
        get_data(str(path), out=tmp_path / "full")


def test_a_part_of_a_coco_json_keeps_all_other_values(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    path.write_bytes(coco("1.jpg", "2.jpg", "3.jpg"))
    content, left_out = restricted(path, {"2.jpg"}, "a.json")
    whole, part = json.loads(coco("1.jpg", "2.jpg", "3.jpg")), json.loads(content)
    assert left_out == 2
    assert (part["info"], part["categories"]) == (whole["info"], whole["categories"])
    assert (part["images"], part["annotations"]) == (whole["images"][1:2], whole["annotations"][1:2])
    with pytest.raises(DataError, match=r"a.json: none of its images was downloaded"):
        restricted(path, {"4.jpg"}, "a.json")
    path.write_bytes(b"[]")
    with pytest.raises(DataError, match=r"^a.json: ") as raised:
        restricted(path, {"1.jpg"}, "a.json")
    with pytest.raises(DataError) as expected:
        read_coco(path, "a.json")
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("license: MIT\nfiles: []\nannotations: a", "files is missing"),
        ("files:\n- url: http://a/b.zip\nannotations: a", "license is missing"),
        ("license: MIT\nfiles:\n- url: ftp://a/b.zip\nannotations: a", r"files\[0\]: url must be an http or https URL"),
        ("license: MIT\nfiles:\n- url: http://a/\nannotations: a", "does not end in a file name"),
        ("license: MIT\nfiles:\n- url: http://a/b.zip\n  sha256: 12\nannotations: a", "sha256 must be 64 hexadecimal"),
        ("license: MIT\nfiles:\n- url: http://a/b.zip\n  folder: ../x\nannotations: a", "without '..'"),
        ("license: MIT\nfiles:\n- url: http://a/b.zip\nannotations: /etc", "without '..'"),
        ("license: MIT\nfiles:\n- url: http://a/b.zip\nannotations:\n  trian: a", "unknown key 'trian'; did you mean"),
        ("license: MIT\nfiles:\n- url: http://a/b.zip\nannotations: a\nformat: vco", "format 'vco' is unknown"),
        ("licence: MIT", "unknown key 'licence'; did you mean 'license'"),
        ("a: [", "is not valid YAML"),
        ("!!python/object/apply:os.system ['true']", "is not valid YAML"),
        ("- a", "must have the keys"),
    ],
)
def test_wrong_yaml_files(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message) as raised:
        load_source(str(tmp_path / "own.yaml"))
    assert "\n" not in str(raised.value)


def test_the_command(served: tuple[Path, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = local("bccd", served)
    assert main(["data", "get", str(path), "--out", str(tmp_path / "b")]) == 0
    shown = capsys.readouterr()
    assert "license: MIT" in shown.out
    assert "train: 1 image, 1 object" in shown.out
    assert "recorded for later downloads" in shown.err
    assert main(["data", "get", "bcd", "--out", str(tmp_path / "c")]) == 2
    assert "tldet data: error: bcd: no such dataset; did you mean 'bccd'?" in capsys.readouterr().err
    assert main(["data", "get", str(tmp_path / "no.yaml")]) == 2
    assert "no.yaml: no such file" in capsys.readouterr().err
