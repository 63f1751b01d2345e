"""Images that cannot be used are found by header and end marker, listed before step 1, and refused or skipped."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.test_images import SEVERAL, frames, header
from tldet.data.checks import files
from tldet.data.checks.files import check_file, find_faults
from tldet.data.checks.headers import read_header
from tldet.data.dataset import CocoDataset
from tldet.data.file_names import require_images, resolve_names
from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.runtime.images import Limits
from tldet.workflows.training.datasets import check_has_objects, check_images
from tldet.workflows.training.finetune import finetune

WIDTH, HEIGHT = 60, 40
BOX = [2, 2, 30, 20]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path / "cache"))


def photo(path: Path, orientation: int = 1, **options: Any) -> Path:
    """A random image of WIDTH x HEIGHT as stored."""
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    exif = Image.Exif()
    if orientation != 1:
        exif[0x0112] = orientation
        options["exif"] = exif
    Image.fromarray(pixels).save(path, **options)
    return path


def data(folder: Path, boxes: Sequence[Sequence[float]], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A JSON of the files of a folder, with a box on each."""
    names = sorted(path.name for path in folder.iterdir())
    whole = {
        "images": [{"id": 10 + i, "file_name": n, "width": size[0], "height": size[1]} for i, n in enumerate(names)],
        "annotations": [
            {"id": i, "image_id": 10 + i, "category_id": 1, "bbox": box}
            for i, box in zip(range(len(names)), boxes, strict=False)
        ],
        "categories": [{"id": 1, "name": "x"}],
    }
    path = folder.parent / f"{folder.name}.json"
    path.write_text(json.dumps(whole))
    return path


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


ENDINGS = ["jpg", "png", "bmp", "webp", "tif", "gif"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_complete_files_are_accepted_without_decoding(tmp_path: Path, ending: str) -> None:
    path = photo(tmp_path / f"a.{ending}")
    header = read_header(path)
    assert header is not None
    assert header.upright == (HEIGHT, WIDTH) == read_image(path).shape[:2]
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert check_file(0, path, Limits(stated=(HEIGHT, WIDTH))).fault is None


@pytest.mark.parametrize("ending", ENDINGS)
def test_files_that_are_cut_off(tmp_path: Path, ending: str) -> None:
    path = photo(tmp_path / f"a.{ending}")
    half(path)
    with pytest.raises(DataError):
        read_image(path)
    fault = check_file(3, path, Limits(stated=(HEIGHT, WIDTH))).fault
    assert fault is not None
    assert fault.position == 3
    assert ("truncated" if ending == "jpg" else "not a readable image") in fault.problem


@pytest.mark.parametrize(("frames", "cut"), [(1, 1), (1, 2), (2, 1), (2, 1500)])
def test_a_gif_is_usable_if_its_first_frame_is_complete(tmp_path: Path, frames: int, cut: int) -> None:
    """Only the first frame is used: a missing trailer or a later frame that is cut off changes no pixel."""
    path = tmp_path / "a.gif"
    pixels = np.random.default_rng(0).integers(0, 256, (frames, HEIGHT, WIDTH, 3), np.uint8)
    first, *others = [Image.fromarray(one) for one in pixels]
    first.save(path, save_all=True, append_images=others)
    whole = read_image(path)
    path.write_bytes(path.read_bytes()[:-cut])
    assert check_file(0, path, Limits(stated=(HEIGHT, WIDTH))).fault is None
    np.testing.assert_array_equal(read_image(path), whole)
    path.write_bytes(path.read_bytes()[:1500])
    fault = check_file(0, path, Limits(stated=(HEIGHT, WIDTH))).fault
    assert fault is not None
    assert "truncated" in fault.problem
    with pytest.raises(DataError, match="truncated"):
        read_image(path)


def with_thumbnail(path: Path) -> bytes:
    """A JPEG with a smaller one in its metadata, which has an end marker of its own."""
    thumbnail = photo(path.with_name("small.jpg"), quality=30).read_bytes()
    content = photo(path).read_bytes()
    segment = b"\xff\xe2" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    return content[:2] + segment + content[2:]


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole,
        lambda whole: whole + bytes(100),
        lambda whole: whole + bytes(10_000),
        lambda whole: whole + whole,
    ],
)
def test_jpegs_with_a_thumbnail_or_further_data_are_accepted(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(change(with_thumbnail(path)))
    assert check_file(0, path, Limits(stated=(HEIGHT, WIDTH))).fault is None
    assert read_image(path).shape[:2] == (HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "change",
    [
        lambda whole: whole[: whole.rindex(b"\xff\xda") + 40],
        lambda whole: whole[: whole.index(b"\xff\xd9") + 10],
        lambda whole: whole[:-400] + bytes(400),
        lambda whole: whole[:-400] + bytes(20_000),
    ],
)
def test_a_jpeg_cut_off_behind_its_thumbnail_or_filled_with_zeros(
    tmp_path: Path, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(change(with_thumbnail(path)))
    fault = check_file(0, path, Limits(stated=(HEIGHT, WIDTH))).fault
    assert fault is not None
    with pytest.raises(DataError):
        read_image(path)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tif"])
def test_orientation_agrees_with_reading(tmp_path: Path, orientation: int, ending: str) -> None:
    path = photo(tmp_path / f"a.{ending}", orientation)
    height, width = read_image(path).shape[:2]
    assert (height, width) == ((WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH))
    assert check_file(0, path, Limits(stated=(height, width))).fault is None
    assert (check_file(0, path, Limits(stated=(width, height))).fault is None) == (width == height)


def test_odd_images(shared: Path) -> None:
    """Images accepted by their header have this size; a PNG damaged in the middle is found by decoding only."""
    folder = shared / "data" / "odd_images"
    refused = set()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".md", ".json"):
            continue
        try:
            size = read_image(path).shape[:2]
        except DataError:
            size = (1, 2)
        fault = check_file(0, path, Limits(stated=size)).fault
        if fault is not None and fault.header is None:
            refused.add(path.name)
        elif path.name != "corrupt_middle.png":
            assert fault is None, path.name
    assert refused == {"empty.jpg", "text.jpg", "truncated_60_percent.jpg", "truncated_header.jpg"}


def test_metadata_longer_than_the_first_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo(tmp_path / "a.jpg", 6, comment=b"x" * 60_000, icc_profile=b"x" * 30_000)
    monkeypatch.setattr(files, "decode_image", None)
    assert check_file(0, path, Limits(stated=(WIDTH, HEIGHT))).fault is None


def make_bad(folder: Path, count: int = 10) -> Path:
    folder.mkdir()
    for i in range(count):
        photo(folder / f"{i}.jpg")
    half(folder / "2.jpg")
    half(folder / "5.jpg")
    (folder / "7.jpg").write_bytes(b"")
    return data(folder, [BOX] * count)


def test_all_are_listed_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """They were found one at a time, at the step that reads them."""
    path = make_bad(tmp_path / "d")
    with pytest.raises(
        DataError, match=r"3 of 10 images cannot be used: .*2\.jpg: is a truncated JPEG .* --on-bad-image skip"
    ):
        CocoDataset(str(path), str(tmp_path / "d")).check_images()
    for name in ("2.jpg", "5.jpg", "7.jpg"):
        assert str(tmp_path / "d" / name) in caplog.text


ROTATED = "sizes differ: file 40 x 60 (EXIF orientation 6), JSON 60 x 40 (the size before the EXIF rotation)"


def make_mixed(folder: Path) -> dict[str, str]:
    """Rotated, truncated and good images, and the problem of each bad one."""
    folder.mkdir()
    for name, orientation in (("a.jpg", 1), ("b.jpg", 6), ("c.jpg", 1), ("d.gif", 1), ("e.png", 6), ("f.png", 1)):
        photo(folder / name, orientation)
    for name in ("g.jpg", "h.webp"):
        photo(folder / name, 6)
    for name in ("c.jpg", "d.gif", "f.png", "g.jpg"):
        half(folder / name)
    wrong = {"b.jpg": ROTATED, "e.png": "sizes differ: file 40 x 60, JSON 60 x 40; the boxes fit both"}
    cut = dict.fromkeys(("c.jpg", "g.jpg"), "is a truncated JPEG") | dict.fromkeys(("d.gif", "f.png"), "truncated")
    return {**wrong, **cut, "h.webp": "sizes differ: file 40 x 60"}


def test_rotated_and_truncated_images_are_in_one_list_before_step_1(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    problems = make_mixed(tmp_path / "d")
    path = data(tmp_path / "d", [BOX] * 8)
    with pytest.raises(DataError, match="7 of 8 images cannot be used"):
        finetune(train=path, val=path, images=tmp_path / "d", out=tmp_path / "o", steps=1, report=False)
    lines = caplog.text.splitlines()
    for name, problem in problems.items():
        listed = [line for line in lines if f"/d/{name}: " in line]
        assert listed, name
        assert all(problem in line for line in listed)
    assert not any("/d/a.jpg: " in line for line in lines)
    assert not list((tmp_path / "o").glob("*.pt"))


def test_skip(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = make_bad(tmp_path / "d")
    (tmp_path / "d" / "9.jpg").unlink()
    dataset = CocoDataset(str(path), str(tmp_path / "d"), on_bad_image="skip")
    dataset.check_images()
    assert dataset.positions.tolist() == [0, 1, 3, 4, 6, 8]
    assert [dataset[i].target.image_id for i in range(len(dataset))] == [10, 11, 13, 14, 16, 18]
    assert "4 of 10 images skipped" in caplog.text
    assert "9.jpg: no such file (image 19)" in caplog.text
    for name in ("0.jpg", "1.jpg", "3.jpg", "4.jpg", "6.jpg", "8.jpg"):
        half(tmp_path / "d" / name)
    with pytest.raises(DataError, match="no image can be used"):
        CocoDataset(str(path), str(tmp_path / "d"), on_bad_image="skip").check_images()


def test_a_second_check_opens_changed_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, opened = make_bad(tmp_path / "d"), list[str]()
    whole: Callable[[Path], Any] = files.read_header

    def counted(path: Path) -> Any:
        opened.append(path.name)
        return whole(path)

    monkeypatch.setattr(files, "read_header", counted)
    for expected in (10, 3):
        opened.clear()
        CocoDataset(str(path), str(tmp_path / "d"), on_bad_image="skip").check_images()
        assert len(opened) == expected, "bad files are looked at again"
    half(tmp_path / "d" / "0.jpg")
    photo(tmp_path / "d" / "2.jpg")
    dataset = CocoDataset(str(path), str(tmp_path / "d"), on_bad_image="skip")
    dataset.check_images()
    assert dataset.positions.tolist() == [1, 2, 3, 4, 6, 8, 9]


@pytest.mark.parametrize(
    ("orientation", "stated", "box", "verdict"),
    [
        (1, (30, 20), [35, 5, 20, 30], "60 x 40, JSON 30 x 20; the boxes fit only the file: correct width"),
        (
            1,
            (120, 80),
            [70, 5, 20, 30],
            "60 x 40, JSON 120 x 80; the boxes fit only the JSON, so the image was",
        ),
        (1, (120, 80), BOX, "the boxes fit both"),
        (1, (50, 50), [70, 70, 20, 30], "the boxes fit neither"),
        (1, (40, 60), [45, 5, 10, 10], "60 x 40, JSON 40 x 60; the boxes fit only the file"),
        (6, (60, 40), [45, 5, 10, 10], r"40 x 60 \(EXIF orientation 6\), JSON 60 x 40 \(the size before the"),
        (6, (60, 40), [45, 5, 10, 10], "annotated before the rotation: remove the EXIF orientation"),
        (6, (60, 40), [5, 45, 10, 10], "the boxes fit only the file: correct width and height"),
    ],
)
def test_the_json_states_another_size(
    tmp_path: Path,
    orientation: int,
    stated: tuple[int, int],
    box: list[float],
    verdict: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Boxes were dropped as outside the image."""
    (tmp_path / "d").mkdir()
    photo(tmp_path / "d" / "a.jpg", orientation)
    path = data(tmp_path / "d", [box], stated)
    with caplog.at_level(logging.INFO), pytest.raises(DataError, match=f"sizes differ: file .*{verdict}"):
        CocoDataset(str(path), str(tmp_path / "d")).check_images()
    assert "outside" not in caplog.text


def test_objects_on_skipped_images_are_not_evaluated(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "ab":
        photo(folder / f"{name}.jpg")
    half(folder / "a.jpg")
    dataset = CocoDataset(str(data(folder, [BOX])), str(folder), on_bad_image="skip")
    check_has_objects(dataset, "metrics are -1")
    assert "no object to evaluate on" not in caplog.text
    check_images(dataset)
    check_has_objects(dataset, "metrics are -1")
    assert "no object to evaluate on (no annotations); metrics are -1" in caplog.text


def test_names_that_no_file_has(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    names = ["x" * 5000 + ".jpg", "a\0.jpg", "y" * 5000 + "/a.jpg", "loop/a.jpg", "a.jpg/b.jpg", "a.jpg"]
    (tmp_path / "loop").symlink_to("loop")
    sizes = np.array([[HEIGHT, WIDTH]] * len(names), np.int32)
    for one in (names, resolve_names(tmp_path, names, tmp_path / "some.json")):
        faults = find_faults(tmp_path, one, sizes, tmp_path / "some.json", range(len(names))).faults
        assert [(fault.position, fault.problem) for fault in faults] == [(n, "no such file") for n in range(5)]
    with pytest.raises(DataError, match=r"5 of 6 images of .* missing: xxx"):
        require_images(tmp_path, names, tmp_path / "some.json")


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"junk" * 100, np.full((3, 3), -5), np.full((2, 3), -5), np.zeros(3)],
)
def test_a_damaged_list_of_checked_files_is_made_anew(tmp_path: Path, content: bytes | np.ndarray) -> None:
    names = [photo(tmp_path / name).name for name in ("a.jpg", "b.jpg")]
    arguments = (tmp_path, names, np.array([[HEIGHT, WIDTH]] * 2, np.int32), tmp_path / "some.json", [0, 1])
    assert find_faults(*arguments) == ([], [])
    (kept,) = (tmp_path / "cache" / "images").iterdir()
    good = kept.read_bytes()
    if isinstance(content, bytes):
        kept.write_bytes(content)
    else:
        np.save(kept, content)
    assert find_faults(*arguments) == ([], [])
    assert kept.read_bytes() == good


def test_damage_to_the_list_of_checked_files_that_keeps_size_and_time_is_found(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"junk")
    names = [photo(tmp_path / "a.jpg").name, "b.jpg"]
    arguments = (tmp_path, names, np.array([[HEIGHT, WIDTH]] * 2, np.int32), tmp_path / "some.json", [0, 1])
    faults = find_faults(*arguments)
    assert [fault.position for fault in faults.faults] == [1]
    (kept,) = (tmp_path / "cache" / "images").iterdir()
    good, stamps = kept.read_bytes(), np.load(kept)
    status = (tmp_path / "b.jpg").stat()
    stamps[1] = status.st_size, status.st_mtime_ns, 1  # as if the damaged image had passed the check
    np.save(kept, stamps)
    assert find_faults(*arguments) == faults
    assert kept.read_bytes() == good


def test_a_huge_image_is_a_fault_that_is_found_without_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(header(65500, 65500))
    for name in ("cv2.imdecode", "PIL.Image.open"):
        monkeypatch.setattr(name, lambda *_: pytest.fail("was decoded"))
    fault = check_file(0, path, Limits(stated=(480, 640))).fault
    assert fault is not None
    assert fault.header is not None or "is 65500 x 65500, but the annotations state 640 x 480" in fault.problem
    fault = check_file(0, path, Limits(stated=(65500, 65500))).fault
    assert fault is not None
    assert "has 65500 x 65500 pixels, more than the limit of 179 million pixels" in fault.problem
    assert check_file(0, path, Limits(2**33, (65500, 65500))).fault is None


def test_the_limit_of_pixels_is_a_setting_of_the_data_set(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    image = {"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}
    whole = {"images": [image], "annotations": [], "categories": [{"id": 1, "name": "x"}]}
    (tmp_path / "a.json").write_text(json.dumps(whole))
    given = str(tmp_path / "a.json"), str(tmp_path)
    CocoDataset(*given, max_pixels=WIDTH * HEIGHT).check_images()
    small = CocoDataset(*given, max_pixels=WIDTH * HEIGHT - 1)
    for call in (small.check_images, lambda: small[0]):
        with pytest.raises(DataError, match="more than the limit"):
            call()


def test_images_with_several_frames_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in (*SEVERAL, "b.tif"):
        frames(folder, name)
    Image.new("RGB", (40, 30)).save(folder / "one.png")
    path = data(folder, [BOX], (40, 30))
    for _ in range(2):  # the second check knows the files
        caplog.clear()
        CocoDataset(str(path), str(folder)).check_images()
        expected = "5 images have several frames, of which the first is used (a.gif, a.png, a.tif, ...)"
        assert expected in caplog.text
