"""Imports of packages that read an environment variable at import time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def variable_set(name: str) -> Iterator[None]:
    """Set an environment variable to 1 during an import, and remove it afterwards; do nothing if it is already set."""
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]
