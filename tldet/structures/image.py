"""Images in memory, and their size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass

ImageArray = NDArray[np.uint8]
Size = tuple[int, int]  # (height, width)
