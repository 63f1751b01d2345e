"""Progress of long loops over images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

Track: TypeAlias = Callable[[Sequence[int]], Iterable[int]]  # wraps the positions of images, to show progress
