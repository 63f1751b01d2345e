"""Which class of a start a class of the data is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tldet.errors import ConfigError
from tldet.transfer.class_match import MatchSettings, but_for_case, class_table, origins, read_class_aliases


@pytest.mark.parametrize(
    ("old", "new", "settings", "expected"),
    [
        (["a", "b"], ["b", "x"], {}, ["b", None]),
        (["Dog", None], ["dog", "None"], {}, [None, None]),
        (["Dog"], ["dog"], {"fold": ["case"]}, ["Dog"]),
        (["dogs"], ["dog"], {"fold": ["case"]}, [None]),
        (["dogs"], ["dog"], {"fold": ["plural"]}, ["dogs"]),
        (["dog"], ["dogs"], {"fold": ["plural"]}, ["dog"]),
        (["Dogs"], ["dog"], {"fold": ["plural"]}, [None]),
        (["Dogs", "bus"], ["dog", "Buses"], {"fold": ["plural", "case"]}, ["Dogs", "bus"]),
        (["berry", "box"], ["berries", "boxes"], {"fold": ["plural"]}, ["berry", "box"]),
        (["glas", "cactus"], ["glass", "cactu"], {"fold": ["plural"]}, ["glas", "cactus"]),
        (["car"], ["auto", "van", "car"], {"aliases": {"auto": "car", "van": "car"}}, ["car", "car", "car"]),
        (["car", "Car"], ["Car", "CAR"], {"aliases": {"CAR": "car"}, "fold": ["case"]}, ["Car", "car"]),
        (["dog", "dogs"], ["dog"], {"fold": ["plural"]}, ["dog"]),
    ],
)
def test_origins(old: list[str | None], new: list[str], settings: dict[str, Any], expected: list[str | None]) -> None:
    assert origins(old, new, MatchSettings(**settings)) == dict(zip(new, expected, strict=True))


@pytest.mark.parametrize(
    ("old", "new", "settings", "error"),
    [
        (["Dog", "DOG"], ["dog"], {"fold": ["case"]}, r"class 'dog' fits 'DOG' and 'Dog' of the start by case"),
        (["dog"], ["Dog", "DOG"], {"fold": ["case"]}, r"classes 'Dog' and 'DOG' all fit 'dog'"),
        (["dog"], ["dog", "dogs"], {"fold": ["plural"]}, r"classes 'dog' and 'dogs' all fit 'dog'"),
        (["cell"], ["Cel"], {"aliases": {"Cell": "cell"}}, r"the data has no class 'Cell'; did you mean 'Cel'\?"),
        (
            ["platelets"],
            ["p"],
            {"aliases": {"p": "platelet"}},
            r"the start has no class 'platelet'; did you mean 'plat",
        ),
        (
            ["abc"],
            ["xyz"],
            {"aliases": {"abc": "xyz"}},
            r"the data has no class 'abc'; the form is {class of the data:",
        ),
        (["a"], ["b"], {"aliases": {"qqq": "a"}}, r"the data has no class 'qqq'; its classes are b"),
    ],
)
def test_what_does_not_fit_is_said(old: list[str], new: list[str], settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error) as raised:
        origins(old, new, MatchSettings(**settings))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": "b", "c d": "e"}', {"a": "b", "c d": "e"}),
        ("# mine: theirs\na: b\n\n 'c d' :  \"e\"  # e\n", {"a": "b", "c d": "e"}),
        ("", {}),
    ],
)
def test_files_of_aliases(tmp_path: Path, text: str, expected: dict[str, str]) -> None:
    (tmp_path / "names").write_text(text)
    assert read_class_aliases(tmp_path / "names") == expected


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"a": 3}', r"names: must give each class of the data a class of the start, not 'a': 3"),
        ('{"a": "b", "a": "c"}', "gives class 'a' twice"),
        ("a: b\na: c", "gives class 'a' twice"),
        ('{"a": ', "no valid JSON"),
        ("a: b\nc", r"names:2: must look like 'new name: old name', not 'c'"),
        ("a:", "not 'a': ''"),
    ],
)
def test_broken_files_of_aliases(tmp_path: Path, text: str, error: str) -> None:
    (tmp_path / "names").write_text(text)
    with pytest.raises(ConfigError, match=error):
        read_class_aliases(tmp_path / "names")
    with pytest.raises(ConfigError, match="none: no such file"):
        read_class_aliases(tmp_path / "none")


def test_the_table() -> None:
    rows = [list(column.cells) for column in class_table({"a": "a", "b": "c", "[d]": None}, "x.pt").columns]
    assert [[str(cell) for cell in row] for row in rows] == [["a", "b", "[d]"], ["carried", "carried from c", "new"]]


def test_names_but_for_their_case() -> None:
    assert but_for_case(["Dog", "cat", None], ["dog", "cat", "bird"]) == ["dog"]
