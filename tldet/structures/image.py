"""Images in memory, and their size."""

from __future__ import annotations

from tldet.runtime.image_types import ImageArray as ImageArray
from tldet.runtime.image_types import Size as Size

LARGEST_SIDE = 8192  # pixels of the input of a network; larger ones exhaust the memory
