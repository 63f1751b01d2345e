"""Type aliases of image arrays and image sizes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]
Size = tuple[int, int]  # (height, width)
