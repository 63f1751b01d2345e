"""Folders and files given to ``tldet predict``."""

from __future__ import annotations

import importlib
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image, features

from tldet.data.images import read_image
from tldet.errors import DataError
from tldet.inference.output_names import Names
from tldet.inference.sources import find_sources, input_kind
from tldet.inference.video import Video


def image(path: Path, form: str = "PNG", color: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), color).save(path, form)
    return path


def inside(folder: Path) -> list[str]:
    return [source.path.relative_to(folder).as_posix() for source in find_sources([str(folder)]).sources]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    image(tmp_path / "data" / "b" / "1.png")
    image(tmp_path / "elsewhere" / "deep" / "2.png")
    folder = tmp_path / "data"
    (folder / "a").symlink_to(folder / "b")
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "link2").symlink_to(tmp_path / "elsewhere")
    (folder / "b" / "up").symlink_to(folder)
    (folder / "b" / "self").symlink_to(folder / "b" / "self")
    (tmp_path / "elsewhere" / "deep" / "back").symlink_to(tmp_path / "elsewhere")
    found = find_sources([str(folder)])
    assert [s.path.relative_to(folder).as_posix() for s in found.sources] == ["b/1.png", "link/deep/2.png"]
    assert [s.name.as_posix() for s in found.sources] == ["b/1.png", "link/deep/2.png"]
    assert found.skipped == {"linked folder already searched": 4, "broken link": 1}


def test_a_folder_whose_files_may_not_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without the right to search it (mode r--): names are listed, and nothing else is possible."""
    image(tmp_path / "a.png")
    (tmp_path / "closed").mkdir()
    image(tmp_path / "closed" / "b.png")
    really = os.stat

    def refused(path: object, *more: object, **options: object) -> os.stat_result:
        if str(path).endswith("b.png"):
            raise PermissionError(13, "Permission denied")
        return really(path, *more, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", refused)
    assert find_sources([str(tmp_path)]).skipped == {"file that cannot be read": 1}


def test_skipped_files_of_a_folder_are_counted_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tldet")
    image(tmp_path / "a.png")
    for name in ("a.txt", "b.txt", "c.JSON", "LICENSE", "._a.png", "app.ts"):
        (tmp_path / name).write_text("BM words\n" * 90)
    (tmp_path / "photo.dng").write_bytes(b"II*\0" + bytes(60000))
    image(tmp_path / ".cache" / "x.png")
    os.mkfifo(tmp_path / "pipe.mp4")
    found = find_sources([str(tmp_path)])
    assert [source.path.name for source in found.sources] == ["a.png"]
    assert found.skipped == {
        ".txt": 2, ".json": 1, "without extension": 1, "hidden": 1, ".ts": 1, ".dng": 1, "hidden folder": 1,
        "special file": 1,
    }  # fmt: skip
    assert f"{tmp_path}: skipped 2 .txt, " in caplog.text
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.csv").write_text("a,b")
    with pytest.raises(DataError, match=r"none: contains no image or video \(skipped: 1 \.csv\)"):
        find_sources([str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.jfif", "JPEG"), ("a.jpe", "JPEG"), ("a.avif", "AVIF"), ("a.jp2", "JPEG2000"), ("a", "WEBP"), ("a", "TIFF"),
        ("a.mp4", "JPEG"), ("a.dat", "GIF"), ("a.bin", "BMP"),
    ],
)  # fmt: skip
def test_images_are_recognized_by_content(tmp_path: Path, name: str, form: str) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    path = image(tmp_path / name, form)
    assert input_kind(path) == "image"
    assert inside(tmp_path) == [name]
    read = read_image(path)
    assert read.shape == (48, 64, 3)
    assert abs(read.reshape(-1, 3).mean(0) - (255, 0, 0)).max() < 8


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500)


def test_heic_needs_a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tldet.data.image_formats.importlib.util.find_spec", lambda _: None)
    image(tmp_path / "a.png")
    (tmp_path / "b.heic").write_bytes(HEIC)
    (tmp_path / "c.jpg").write_bytes(HEIC)  # as phones name it after a transfer
    found = find_sources([str(tmp_path)])
    assert [source.path.name for source in found.sources] == ["a.png"]
    need = "(install pillow-heif to read it)"
    assert found.skipped == {f".heic {need}": 1, f".jpg {need}": 1}
    with pytest.raises(DataError, match=r"b\.heic: is a HEIF image.*pillow-heif"):
        read_image(tmp_path / "b.heic")


def test_heic_is_read_if_pillow_heif_is_installed(tmp_path: Path) -> None:
    heif = importlib.import_module("pillow_heif")  # of the extra dev
    heif.from_pillow(Image.new("RGB", (64, 48), "red")).save(tmp_path / "a.heic")
    shutil.copy(tmp_path / "a.heic", tmp_path / "b.jpg")  # as phones name it after a transfer
    assert inside(tmp_path) == ["a.heic", "b.jpg"]
    for name in ("a.heic", "b.jpg"):
        pixels = read_image(tmp_path / name)
        assert pixels.shape == (48, 64, 3)
        assert abs(pixels.reshape(-1, 3).mean(0) - (255, 0, 0)).max() < 8


def test_a_broken_image_is_left_to_be_reported(tmp_path: Path) -> None:
    for name, content in (("a.jpg", b""), ("b.png", b"words"), ("c.jpg", b"\xff\xd8\xff\xe0")):
        (tmp_path / name).write_bytes(content)
    assert inside(tmp_path) == ["a.jpg", "b.png", "c.jpg"]


def test_special_files_and_odd_arguments(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    image(tmp_path / "a.png")
    cases = {
        str(tmp_path / "pipe.jpg"): "is a pipe, not a regular file",
        "/dev/zero": "is a device",
        "": "an input is an empty string",
        "x" * 5000: "no such image",
        "a\0b": "no such image",
        "9" * 5000: "no such image",
        "\u00b2": "no such image",
        str(tmp_path / "pip*"): "no such image",
        "https://example.org/a.jpg": "is a URL; download the file",
    }
    for given, message in cases.items():
        with pytest.raises(DataError, match=message):
            find_sources([str(tmp_path / "a.png"), given])
    found = find_sources([str(tmp_path / "*")])
    assert [source.path.name for source in found.sources] == ["a.png"]
    assert found.skipped == {"special file": 1}
    with pytest.raises(DataError, match="is a pipe"):
        Video(tmp_path / "pipe.jpg")


def test_many_inputs_of_one_name_get_distinct_names_quickly() -> None:
    names = Names()
    claimed = [names.claim(Path("x/image.jpg" if number % 2 else "X/Image.JPG")) for number in range(20_000)]
    assert len({str(name).lower() for name in claimed}) == 20_000
    assert [str(name) for name in claimed[:3]] == ["X/Image.JPG", "x/image_2.jpg", "X/Image_3.JPG"]


def test_a_recursive_glob_follows_links_once(tmp_path: Path) -> None:
    """Two links to their own folder are 2^40 paths for Python's glob."""
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    for name in ("a.jpg", "in/b.jpg", "in/deep/c.jpg", "in/deep/d.png", ".hidden/e.jpg", "in/.f.jpg"):
        image(folder / name)
    image(elsewhere / "g.jpg")
    for name, target in (("one", "."), ("two", "."), ("in/up", ".."), ("in/linked", elsewhere)):
        (folder / name).symlink_to(target)

    def names(pattern: str) -> list[str]:
        return [one.path.relative_to(folder).as_posix() for one in find_sources([str(folder / pattern)]).sources]

    assert names("**/*.jpg") == ["a.jpg", "in/b.jpg", "in/deep/c.jpg", "in/linked/g.jpg"]
    assert names("in/**/[cd].*") == ["in/deep/c.jpg", "in/deep/d.png"]
    assert names("**/deep/*.jpg") == names("*n/**/c*") == names("**/in/**/c.jpg") == ["in/deep/c.jpg"]
    assert names("in/deep/**") == ["in/deep/c.jpg", "in/deep/d.png"]
    assert names("*.jpg") == ["a.jpg"]
    with pytest.raises(DataError, match="no such image"):
        find_sources([str(folder / "**/x/*.jpg")])
