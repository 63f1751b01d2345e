"""Images in memory, and their size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
Size = tuple[int, int]  # (height, width)
LARGEST_SIDE = 8192  # pixels of the input of a network; larger ones exhaust the memory
