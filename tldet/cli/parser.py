"""Argument parser of all commands: no abbreviations, errors in one line, suggestions for unknown options."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from tldet.cli.suggestions import near, suggestion
from tldet.runtime.streams import error_stream, output_stream


class Parser(ArgumentParser):
    """Parser that suggests names for unknown options and commands.

    Args:
        hints: messages for options that the command does not have, by name without dashes.
    """

    def __init__(self, *args: Any, hints: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})
        self.hints = hints or {}
        self._commands: Any = None

    def add_subparsers(self, **kwargs: Any) -> Any:
        """Add commands, which inherit the hints; their names are suggested for an unknown one."""
        self._commands = super().add_subparsers(**{"parser_class": partial(Parser, hints=self.hints), **kwargs})
        return self._commands

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse arguments; unknown options are reported before missing ones, which they explain."""
        given = sys.argv[1:] if args is None else list(args)
        self._refuse_unknown(given)
        parsed, rest = super().parse_known_args(given, namespace)
        if rest and self._commands is None:
            word = "argument" if len(rest) == 1 else "arguments"
            self.error(f"unexpected {word} {' '.join(rest)}")
        return parsed, rest

    def leaves(self) -> Iterator[Parser]:
        """Yield this parser, or the parsers of its commands, recursively."""
        if self._commands is None:
            yield self
        else:
            for command in self._commands.choices.values():
                yield from command.leaves()

    def _print_message(self, message: str, file: Any = None) -> None:
        """Write a help text or an error; argparse ignores a failed write.

        Raises:
            OutputError: standard output cannot be written.
        """
        standard = output_stream() if file in (None, sys.stdout) else file
        if message:
            (error_stream() if file is sys.stderr else standard).write(message)

    def error(self, message: str) -> NoReturn:
        """Print one line and end with exit code 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")

    def _refuse_unknown(self, given: Sequence[str]) -> None:
        known = list(self._option_string_actions)
        if self._commands is not None:
            command = next((word for word in given if not word.startswith("-")), None)
            if command is not None and command not in self._commands.choices:
                self.error(f"no command {command!r}; {near(command, self._commands.choices)}")
            given = given[: given.index(command)] if command is not None else given
        unknown = [(name, value) for name, value in _options(given) if name not in known]
        if unknown:
            texts = [f"unknown option {name}{suggestion(name, value, known, self.hints)}" for name, value in unknown]
            self.error("; ".join(texts))


def _options(given: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each option in ``given`` with its first value; arguments after ``--`` are no options."""
    words = list(given[: given.index("--")] if "--" in given else given)
    for number, word in enumerate(words):
        if _is_option(word):
            name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            following = words[number + 1 : number + 2]
            yield name, value if equals else next((one for one in following if not _is_option(one)), None)


def _is_option(word: str) -> bool:
    """Return True if argparse takes a word for an option: not for a negative number or a text with spaces."""
    if not word.startswith("-") or word == "-" or " " in word:
        return False
    try:
        float(word)
    except ValueError:
        return True
    return False
