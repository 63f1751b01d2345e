"""Messages stay readable, whatever the input holds."""

import pytest

from tldet.errors import ConfigError, DataError, shorten


def test_usual_messages_stay_as_they_are() -> None:
    text = "config.py: lr is 'é\t文'\nmodel.head: unknown key; " + "known: a, b, " * 100
    assert str(ConfigError(text)) == text


def test_long_words_are_shortened() -> None:
    text = str(ConfigError(f"config.py: {'k' * 100_000}: unknown key; did you mean 'lr'?"))
    assert len(text) < 400
    assert text.startswith("config.py: kkk")
    assert "...[100001 characters]..." in text  # its colon too
    assert text.endswith("unknown key; did you mean 'lr'?")


@pytest.mark.parametrize("key", ["a b " * 100_000, "a\n" * 100_000, "é" * 100_000, " " * 100_000])
def test_long_messages_are_shortened(key: str) -> None:
    text = shorten(f"data.json: has {key} instead of a number")
    assert len(text) < 10_100
    assert text.startswith("data.json: has ")
    assert text.endswith(" instead of a number")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("red\nblue", r"red\nblue"),
        ("red\r\n", r"red\r\n"),
        ("\x1b[2Jred\x07", r"\x1b[2Jred\x07"),
        ("a\x85b\u2028c", r"a\x85b\u2028c"),
        ("\u202ered", r"\u202ered"),
        ("a\x00", r"a\x00"),
    ],
)
def test_control_characters_of_names_are_escaped(name: str, shown: str) -> None:
    """They broke a message into lines and reached the terminal."""
    assert str(DataError(f"a.json: has no class {name}; rename it")) == f"a.json: has no class {shown}; rename it"
    assert str(ConfigError(f"a.py: {name}")).replace("\n", r"\n") == f"a.py: {shown}"
