"""Standard output and standard error of a command, which may be redirected to a full disk."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import IO, Any, TextIO, cast

from .errors import OutputError


class CheckedStream:
    """A stream that turns failed writes into a one-line error.

    After a failure, all further output is discarded, including what Python flushes at exit.

    Args:
        stream: standard output or standard error.
        name: name in the message; None ignores failures (for standard error).
    """

    def __init__(self, stream: TextIO, name: str | None = None) -> None:
        self._stream, self._name = stream, name

    def write(self, text: str) -> int:
        """Write a text.

        Raises:
            OutputError: the stream cannot be written.
        """
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer; see :meth:`write`."""
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _fail(self, error: OSError) -> None:
        if isinstance(error, BrokenPipeError):  # handled by the caller or by rich
            raise error
        discard_output(self._stream)
        if self._name is not None:
            raise OutputError(f"{self._name}: cannot be written ({error.strerror})") from None


def discard_output(stream: TextIO) -> None:
    """Redirect a stream, including its buffer, to the null device."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def output_stream() -> IO[str]:
    """Return standard output as a :class:`CheckedStream`."""
    return cast("IO[str]", CheckedStream(sys.stdout or io.StringIO(), "standard output"))


def error_stream() -> IO[str]:
    """Return standard error as a :class:`CheckedStream`."""
    return cast("IO[str]", CheckedStream(sys.stderr or io.StringIO()))
