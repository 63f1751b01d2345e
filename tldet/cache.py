"""Where what is costly to find out is kept between runs: ``$TLDET_CACHE``, or ``~/.cache/tldet``."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def cache_root() -> Path:
    """The folder of everything kept; removing it loses time and nothing else."""
    return Path(os.environ.get("TLDET_CACHE") or Path.home() / ".cache" / "tldet")


def remembered(kind: str, key: str, find_out: Callable[[], Any]) -> tuple[Any, bool]:
    """A small answer (anything JSON holds), found out once for each key.

    Args:
        kind: what sort of answer; a folder in the cache.
        key: everything the answer depends on.
        find_out: gives the answer; called where none is kept.

    Returns:
        The answer, and whether it was kept from an earlier time. Where the folder cannot be used, it is found out anew.
    """
    path = cache_root() / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8")), True
    except (OSError, ValueError):
        answer = find_out()
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(answer, file)
        Path(partial).replace(path)
    return answer, False
