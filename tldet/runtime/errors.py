"""Errors that a user can correct.

The command line prints a :class:`TldetError` as one line and exits with code 2. Everything else is a programming
error and keeps its traceback. A message names the file, the annotation id or the config key, and states what to do.
"""

from __future__ import annotations

import re
from typing import ClassVar

LONGEST_WORD = 300  # characters of a word in a message; longer than most paths
LONGEST_LINE, LONGEST_MESSAGE = 2_000, 10_000  # characters
WORD = re.compile(rf"\S{{{LONGEST_WORD + 1},}}")
CONTROL = re.compile(  # includes line breaks except \n, and changes of text direction
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)


class TldetError(Exception):
    """Invalid input; the message states the problem and the remedy. Long words of the input are shortened.

    Attributes:
        one_line: line breaks come from the input, such as a class name, and are escaped like other control characters.
    """

    one_line: ClassVar[bool] = True

    def __init__(self, message: object = "") -> None:
        super().__init__(shorten(str(message), one_line=self.one_line))


class ConfigError(TldetError):
    """A config file, key or value is wrong; one line for each key."""

    one_line: ClassVar[bool] = False


class DataError(TldetError):
    """An annotation file, an image or a results file is wrong."""


class NotAnImage(DataError, TypeError):
    """An object that cannot be converted to an image."""


class OutputError(DataError):
    """A file or folder cannot be written."""


class CheckpointError(TldetError):
    """A checkpoint or weights file cannot be read, written or used here."""


def shorten(message: str, *, one_line: bool = False) -> str:
    """Shorten the long words of a message, such as keys or class names from a file, and a message that is too long.

    Args:
        message: the text; its control characters are escaped.
        one_line: also escape line breaks.
    """
    message = CONTROL.sub(lambda found: ascii(found[0])[1:-1], message)
    if one_line:
        message = message.replace("\n", r"\n")
    message = WORD.sub(lambda word: _cut(word[0], LONGEST_WORD), message)
    return _cut("\n".join(_cut(line, LONGEST_LINE) for line in message.split("\n")), LONGEST_MESSAGE)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Return ``1 image``, ``1,204 images``; ``plural`` is the plural if it is not the noun with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def _cut(text: str, length: int) -> str:
    """Keep the start and the end of a long text, and state its length."""
    if len(text) <= length:
        return text
    end = length // 3
    return f"{text[: length - end]}...[{len(text)} characters]...{text[-end:]}"
