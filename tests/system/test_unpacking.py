"""Hostile archives: nothing is written outside the folder, and nothing beyond the limits."""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tldet.errors import DownloadError
from tldet.system.unpacking import UnpackLimits, is_archive, unpack


def zipped(path: Path, *entries: tuple[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, mode << 16
            archive.writestr(info, content)
    return path


def tarred(path: Path, *entries: tuple[str, bytes], **changes: Any) -> Path:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in entries:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in changes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return path


FILES = [("a/one.txt", b"1"), ("a/b/two.txt", b"22"), ("__MACOSX/a/._one.txt", b"x"), ("a/.DS_Store", b"x")]


@pytest.mark.parametrize("name", ["good.zip", "good.tar", "good.tar.gz"])
def test_files_and_folders(name: str, tmp_path: Path) -> None:
    make = zipped if name.endswith(".zip") else tarred
    assert unpack(make(tmp_path / name, *FILES), tmp_path / "out") == 2
    assert (tmp_path / "out" / "a" / "b" / "two.txt").read_bytes() == b"22"
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == ["one.txt", "two.txt"]
    assert is_archive(name)
    assert not is_archive("annotations.json")


HOSTILE = ["../out.txt", "a/../../out.txt", "/tmp/out.txt", "C:/out.txt", "a\\..\\out.txt", "a\nb.txt", "a/" * 40 + "b"]


@pytest.mark.parametrize("make", [zipped, tarred])
@pytest.mark.parametrize("name", HOSTILE)
def test_names_that_lead_out_of_the_folder(make: Any, name: str, tmp_path: Path) -> None:
    archive = make(tmp_path / f"bad.{'zip' if make is zipped else 'tar'}", ("a.txt", b"1"), (name, b"2"))
    with pytest.raises(DownloadError, match=r"bad\.(zip|tar): entry .* not unpacked") as raised:
        unpack(archive, tmp_path / "in" / "out")
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in (tmp_path / "in").rglob("*")) in (["a.txt", "out"], ["a", "a.txt", "out"])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_in_a_tar(kind: bytes, tmp_path: Path) -> None:
    archive = tarred(tmp_path / "bad.tar", ("link", b""), type=kind, linkname="/etc/passwd")
    with pytest.raises(DownloadError, match="entry 'link' is a link or a device"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_links_in_a_zip(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "bad.zip", ("link", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777)
    with pytest.raises(DownloadError, match="entry 'link' is a link or a device"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize("make", [zipped, tarred])
def test_entries_that_occur_twice(make: Any, tmp_path: Path) -> None:
    archive = make(tmp_path / f"bad.{'zip' if make is zipped else 'tar'}", ("a.txt", b"1"), ("A.txt", b"2"))
    with pytest.raises(DownloadError, match=r"entry 'A\.txt': occurs twice"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (UnpackLimits(ratio=10), "unpacks to more than the limit of 655,360 bytes"),
        (UnpackLimits(size=1000, ratio=1e9), "unpacks to more than the limit of 1,000 bytes"),
        (UnpackLimits(files=1, ratio=1e9), "more than 1 file"),
    ],
)
def test_archive_bombs(limits: UnpackLimits, message: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "bomb.zip", ("a", bytes(2_000_000)), ("b", bytes(2_000_000)))
    with pytest.raises(DownloadError, match=message):
        unpack(archive, tmp_path / "out", limits)
    assert sum(path.stat().st_size for path in (tmp_path / "out").iterdir()) <= 2_000_000


def test_damaged_archives(tmp_path: Path) -> None:
    whole = zipped(tmp_path / "a.zip", ("a.txt", b"text" * 1000)).read_bytes()
    bad = whole.replace(whole[40:44], b"\0\1\2\3")
    packed = tarred(tmp_path / "a.tar.gz", ("a.txt", bytes(range(256)) * 1000)).read_bytes()
    contents = {"cut.zip": whole[:-30], "bad.zip": bad, "text.zip": b"no archive", "cut.tar.gz": packed[:-200]}
    for name, content in {**contents, "text.tar": b"no archive", "empty.tar": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DownloadError, match=rf"{name}: (is damaged|contains no file)") as raised:
            unpack(tmp_path / name, tmp_path / f"out {name}")
        assert "\n" not in str(raised.value)
