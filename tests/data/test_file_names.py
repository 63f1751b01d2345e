"""File names as other tools write them lead to the files, by the first rule that fits all, which is logged."""

from __future__ import annotations

import logging
import unicodedata
from pathlib import Path

import pytest

from tldet.data.file_names import resolve_names


def fill(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


FILES = ["images/a b.jpg", "images/c.jpg"]
PLAIN = ["a b.jpg", "c.jpg"]


@pytest.mark.parametrize(
    ("written", "found", "rule"),
    [
        (FILES, FILES, ""),
        (["./images/a b.jpg", "images//c.jpg"], ["./images/a b.jpg", "images//c.jpg"], ""),
        (["images\\a b.jpg", "images\\c.jpg"], FILES, "backslashes read as slashes"),
        (["images\\a b.jpg", "images/c.jpg"], FILES, "backslashes read as slashes"),
        (["images/a%20b.jpg", "images/c.jpg"], FILES, "percent escapes decoded"),
        (["images\\a%20b.jpg", "images\\c.jpg"], FILES, "backslashes read as slashes, percent escapes decoded"),
        (["/home/ann/x/images/a b.jpg", "/home/ann/x/images/c.jpg"], FILES, "home/ann/x/ dropped"),
        (
            ["D:\\x\\images\\a b.jpg", "D:\\x\\images\\c.jpg"],
            FILES,
            "backslashes read as slashes, absolute paths: D:/x/",
        ),
        (["\\\\nas\\x\\images\\a b.jpg", "\\\\nas\\x\\images\\c.jpg"], FILES, "nas/x/ dropped"),
        (["file:///x/images/a%20b.jpg", "file:///x/images/c.jpg"], FILES, "file:/x/ dropped"),
        (["/x/one/images/a b.jpg", "/x/two/images/c.jpg"], None, ""),
        (["Images/A B.JPG", "Images/C.Jpg"], FILES, "letter case ignored"),
        (["Images\\A%20B.JPG", "Images\\C.Jpg"], FILES, "percent escapes decoded, letter case ignored"),
        (["C:\\x\\IMAGES\\a b.jpg", "C:\\x\\IMAGES\\c.jpg"], FILES, "letter case ignored"),
        (["images/a+b.jpg", "images/c.jpg"], None, ""),
        (["a b.jpg", "c.jpg"], None, ""),
    ],
)
def test_rules(
    tmp_path: Path, written: list[str], found: list[str] | None, rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path, FILES)
    with caplog.at_level(logging.INFO):
        names = resolve_names(tmp_path, written, Path("x.json"))
    missing = [name for name in names if not (tmp_path / name).is_file()]
    if found is None:
        assert missing
    else:
        assert list(names) == found
        assert rule in caplog.text
    assert bool(caplog.text) == bool(rule) or found is None


def test_folders_of_another_machine_may_differ(tmp_path: Path) -> None:
    fill(tmp_path, PLAIN)
    assert list(resolve_names(tmp_path, ["/x/1/a b.jpg", "/x/2/c.jpg"], Path("x.json"))) == PLAIN
    fill(tmp_path, ["1/d.jpg", "2/d.jpg"])
    assert list(resolve_names(tmp_path, ["/x/1/d.jpg", "/x/2/d.jpg"], Path("x.json"))) == ["1/d.jpg", "2/d.jpg"]


@pytest.mark.parametrize(
    "written",
    [["/x/1/a.jpg", "/x/2/a.jpg"], ["A.jpg", "a.JPG"], ["a%2Ejpg", "a%2ejpg"]],
)
def test_two_images_never_become_one_file(tmp_path: Path, written: list[str]) -> None:
    fill(tmp_path, ["a.jpg"])
    assert list(resolve_names(tmp_path, written, Path("x.json"))) == written


def test_a_name_that_is_there_is_not_changed(tmp_path: Path) -> None:
    names = ["a%20b.jpg", "A.jpg", "x\\y.jpg"]
    fill(tmp_path, [*names, "a b.jpg", "a.jpg", "x/y.jpg"])
    assert list(resolve_names(tmp_path, names, Path("x.json"))) == names


def test_letter_case_decides_between_two_files(tmp_path: Path) -> None:
    fill(tmp_path, ["a.jpg", "A.jpg", "b.jpg"])
    assert list(resolve_names(tmp_path, ["a.JPG", "b.jpg"], Path("x.json"))) == ["a.JPG", "b.jpg"]


def test_unicode_forms(tmp_path: Path) -> None:
    composed, decomposed = (unicodedata.normalize(form, "Bär.jpg") for form in ("NFC", "NFD"))
    fill(tmp_path, [decomposed])
    assert list(resolve_names(tmp_path, [composed], Path("x.json"))) == [decomposed]


def test_the_rule_that_fits_most_images_is_used_if_some_are_missing(tmp_path: Path) -> None:
    fill(tmp_path, ["images/a.jpg", "images/b.jpg"])
    names = resolve_names(tmp_path, ["images\\a.jpg", "images\\b.jpg", "images\\gone.jpg"], Path("x.json"))
    assert list(names) == ["images/a.jpg", "images/b.jpg", "images/gone.jpg"]
