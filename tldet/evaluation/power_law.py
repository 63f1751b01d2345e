"""AP as a function of the number of training pictures: an inverse power law, fitted and carried on a little.

AP(n) = a - b n^-c with b >= 0 and c > 0 (Hestness et al. 2017, "Deep Learning Scaling is Predictable, Empirically").
Far beyond the data such fits mislead (Mahmood et al. 2022, "How Much More Data Do I Need?").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tldet.errors import DataError
from tldet.evaluation.statistics import Interval, percentile_interval

Floats = NDArray[np.float64]
EXPONENTS = np.geomspace(0.05, 3.0, 120)  # c: from nearly logarithmic to nearly a step
LEAST_SIZES = 3  # numbers of pictures that three parameters take
FARTHEST = 4.0  # times the most pictures measured
DRAWS = 500


@dataclass(frozen=True)
class PowerLaw:
    """A fitted curve.

    Attributes:
        a: where it leads with pictures without end.
        b: how far below that it begins.
        c: how fast it rises.
        samples: (B, 3) the same of the bootstrap's fits.
        largest: the most pictures that were measured.
        count: of the runs that it was fitted to.
    """

    a: float
    b: float
    c: float
    samples: Floats
    largest: int
    count: int

    def at(self, pictures: float) -> Interval:
        """The mean AP of such runs to expect with so many pictures.

        Raises:
            DataError: that is too far beyond what was measured.
        """
        if pictures > FARTHEST * self.largest:
            most = math.floor(FARTHEST * self.largest)
            raise DataError(
                f"{pictures:g} pictures are more than {FARTHEST:g} times the {self.largest} measured: the curve says "
                f"nothing there; ask for at most {most}"
            )
        a, b, c = self.samples.T
        drawn = np.clip(a - b * pictures**-c, 0, 1)
        return percentile_interval(drawn, min(max(self.a - self.b * pictures**-self.c, 0.0), 1.0), self.count)


def fit(pictures: Sequence[int], values: Sequence[float], *, seed: int = 0, draws: int = DRAWS) -> PowerLaw:
    """Fit the curve to runs, with a bootstrap.

    The bootstrap turns the signs of the runs' distances from the curve at random (the wild bootstrap, Wu 1986), which
    are lengthened for the three parameters fitted: runs on few pictures scatter more than those on many, and there are
    too few on each number of pictures to draw from them.

    Args:
        pictures: (R,) that each run was trained on.
        values: (R,) AP.
        seed: what the signs are drawn from.
        draws: of the bootstrap.

    Raises:
        DataError: the runs cannot carry a fit; why.
    """
    sizes, found = np.array(pictures, np.float64), np.array(values, np.float64)
    different = len(set(pictures))
    if different < LEAST_SIZES:
        raise DataError(f"{different} numbers of pictures cannot carry a curve of 3 parameters: give 3 fractions")
    if len(found) <= LEAST_SIZES:
        raise DataError(f"{len(found)} runs fit a curve of 3 parameters always: give more fractions or seeds")
    a, b, c = _best(sizes, found[None])[0]
    curve = a - b * sizes**-c
    apart = (found - curve) * math.sqrt(len(found) / (len(found) - 3))
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], size=(draws, len(found)))
    return PowerLaw(a, b, c, _best(sizes, curve + signs * apart), max(pictures), len(found))


def _best(sizes: Floats, values: Floats) -> Floats:
    """(B, 3) a, b, c of least squares for each row of (B, R) values: every c of a grid, a and b in closed form."""
    powers = sizes[None] ** -EXPONENTS[:, None]  # (C, R)
    centred = powers - powers.mean(1, keepdims=True)
    away = values - values.mean(1, keepdims=True)
    b = np.maximum(-(away @ centred.T) / (centred**2).sum(1), 0)  # (B, C); more pictures do no harm
    a = values.mean(1, keepdims=True) + b * powers.mean(1)
    error = ((values[:, None] - (a[..., None] - b[..., None] * powers)) ** 2).sum(2)
    # No detector is better than perfect: curves that lead beyond are taken only where there are no others.
    best = np.where(a > 1, error + values.shape[1], error).argmin(1)
    rows = np.arange(len(values))
    return np.stack([a[rows, best], b[rows, best], EXPONENTS[best]], 1)
