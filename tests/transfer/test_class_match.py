"""Which class of a start a class of the data is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tldet.errors import ConfigError
from tldet.transfer.class_match import (
    MatchSettings,
    class_match_table,
    differing_in_case,
    match_classes,
    read_class_aliases,
)


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
    assert match_classes(old, new, MatchSettings(**settings)) == dict(zip(new, expected, strict=True))


@pytest.mark.parametrize(
    ("old", "new", "settings", "error"),
    [
        (["Dog", "DOG"], ["dog"], {"fold": ["case"]}, r"class 'dog' matches 'DOG' and 'Dog' of the initial weights"),
        (["dog"], ["Dog", "DOG"], {"fold": ["case"]}, r"classes 'Dog' and 'DOG' all match 'dog'"),
        (["dog"], ["dog", "dogs"], {"fold": ["plural"]}, r"classes 'dog' and 'dogs' all match 'dog'"),
        (["cell"], ["Cel"], {"aliases": {"Cell": "cell"}}, r"no class 'Cell' in the data; did you mean 'Cel'\?"),
        (
            ["platelets"],
            ["p"],
            {"aliases": {"p": "platelet"}},
            r"no class 'platelet' in the initial weights; did you mean 'plat",
        ),
        (
            ["abc"],
            ["xyz"],
            {"aliases": {"abc": "xyz"}},
            r"no class 'abc' in the data; an alias has the form {class of the data:",
        ),
        (["a"], ["b"], {"aliases": {"qqq": "a"}}, r"no class 'qqq' in the data; classes: b"),
    ],
)
def test_mismatches_are_reported(old: list[str], new: list[str], settings: dict[str, Any], error: str) -> None:
    with pytest.raises(ConfigError, match=error) as raised:
        match_classes(old, new, MatchSettings(**settings))
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
        ('{"a": 3}', r"names: must map classes of the data to those of the initial weights, not 'a': 3"),
        ('{"a": "b", "a": "c"}', "class 'a' is repeated"),
        ("a: b\na: c", "class 'a' is repeated"),
        ('{"a": ', "invalid JSON"),
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
    rows = [list(column.cells) for column in class_match_table({"a": "a", "b": "c", "[d]": None}, "x.pt").columns]
    assert [[str(cell) for cell in row] for row in rows] == [["a", "b", "[d]"], ["copied", "copied from c", "new"]]


def test_names_but_for_their_case() -> None:
    assert differing_in_case(["Dog", "cat", None], ["dog", "cat", "bird"]) == ["dog"]
