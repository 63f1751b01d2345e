"""``log.jsonl``: one JSON object a line, the same in a resumed run as in one left alone but for ``time``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tldet.errors import TrainingError

LOG_NAME = "log.jsonl"  # in a run's folder


class JsonLog:
    """Appends records; every field that depends on the clock or the machine lies in a record's ``time``.

    Args:
        path: the file.
        quiet: write nothing, as in a process beside the main one.

    Raises:
        TrainingError: (from every method) the file cannot be written.
    """

    def __init__(self, path: Path, *, quiet: bool = False) -> None:
        self.path, self.quiet = path, quiet

    def cut(self, step: int, *, unmeasured: bool = False) -> None:
        """Keep the records up to ``step``: later ones, and a half-written last one, will be written anew.

        Args:
            step: the last step that was taken.
            unmeasured: its validation will be written anew too.
        """
        if self.quiet:
            return
        kept = b""
        if self.path.exists():
            for line in self.path.read_bytes().splitlines(keepends=True):
                record = json.loads(line) if line.endswith(b"\n") else {"step": step + 1}
                if record["step"] > step or (unmeasured and record["step"] == step and record["type"] == "val"):
                    break
                kept += line
        with self._naming():
            spare = self.path.with_suffix(".tmp")
            spare.write_bytes(kept)
            spare.replace(self.path)

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one record; numbers that are not finite become null."""
        if self.quiet:
            return
        with self._naming(), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(_plain(record), allow_nan=False) + "\n")

    def sync(self) -> None:
        """Push what was written to the disk, before a checkpoint that relies on it."""
        if self.path.exists() and not self.quiet:
            with self._naming(), self.path.open("rb+") as file:
                os.fsync(file.fileno())

    @contextmanager
    def _naming(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"cannot write {self.path}: {error.strerror}; make room or choose another folder"
            ) from None


def read_log(path: str | Path) -> list[dict[str, Any]]:
    """The records of a ``log.jsonl``; a half-written last line is left out."""
    lines = Path(path).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
