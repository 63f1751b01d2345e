"""Counts of a rehearsal, by call site."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import torch

HERE = str(Path(__file__).resolve().parent)
TORCH = str(Path(torch.__file__).resolve().parent)
WAITS = ("item", "d2h", "h2d", "shape", "nms", "call")  # kinds of synchronization


class Counts:
    """Synchronizations, device mixes, launches, nondeterministic operations, float64 results, ``torch.cuda`` calls.

    Args:
        within: parts of the paths of files whose lines are named as call sites; the innermost match counts.
    """

    def __init__(self, within: tuple[str, ...]) -> None:
        self.within = within
        self.syncs: Counter[tuple[str, str, str]] = Counter()  # kind, operation, call site
        self.mixes: Counter[tuple[str, str]] = Counter()  # operation, call site
        self.ops: Counter[str] = Counter()
        self.api: Counter[tuple[str, str]] = Counter()
        self.undeterministic: Counter[tuple[str, str]] = Counter()
        self.doubles: Counter[tuple[str, str]] = Counter()  # float64 results, which MPS does not have

    def site(self) -> str:
        """Return the innermost line of the stack in ``within``; else the innermost outside of torch."""
        frame: FrameType | None = sys._getframe(1)
        other = "?"
        while frame is not None:
            name, line = frame.f_code.co_filename, f"{frame.f_lineno} {frame.f_code.co_name}"
            if not name.startswith((HERE, TORCH)):
                part = next((part for part in self.within if part in name), None)
                if part is not None:
                    return f"{name.split(part)[-1]}:{line}"
                if other == "?" and not name.startswith("<") and "/unittest/" not in name:
                    other = f"{Path(name).name}:{line}"
            frame = frame.f_back
        return other

    def reset(self) -> None:
        """Set all counts to zero."""
        for counter in (self.syncs, self.mixes, self.ops, self.api, self.undeterministic, self.doubles):
            counter.clear()

    def total(self, *kinds: str) -> int:
        """Return the number of synchronizations of these kinds, by default of all (``unpinned`` is none)."""
        return sum(count for (kind, _, _), count in self.syncs.items() if kind in (kinds or WAITS))

    def table(self) -> str:
        """Return the synchronizations by call site, most frequent first."""
        rows = [f"{count:5d}  {kind:8s} {what:24s} {site}" for (kind, what, site), count in self.syncs.most_common()]
        return "\n".join(rows)

    def by_kind(self) -> dict[str, int]:
        """Return the number of synchronizations by kind, ``unpinned`` copies included."""
        kinds: Counter[str] = Counter()
        for (kind, _, _), count in self.syncs.items():
            kinds[kind] += count
        return dict(kinds)
