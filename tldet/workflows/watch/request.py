"""Request of ``tldet watch``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tldet.workflows.options import described, option
from tldet.workflows.requests import Request


@dataclass(frozen=True, kw_only=True)
class WatchRequest(Request):
    """Arguments of ``tldet watch``."""

    folder: str | Path = field(
        kw_only=False, metadata=described("output directory of a run", metavar="RUN", positional=True)
    )
    once: bool = option("print the current state and exit", bool)
    interval: float = option(
        "seconds between updates (default: 1)", float, default=1.0, metavar="S", interval="(0, 86400]"
    )
