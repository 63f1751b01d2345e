"""Renumbering of repeated ids."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray


def unclashed(ids: NDArray[np.int64], refused: Collection[int] = ()) -> NDArray[np.int64]:
    """Make ids unique: the first occurrence keeps its id, the others get the smallest free ids from 1.

    Args:
        ids: (N,) in order of precedence.
        refused: ids that are always replaced.

    Returns:
        (N,) int64, unique and not in ``refused``.
    """
    _, first = np.unique(ids, return_index=True)
    moves = np.ones(len(ids), np.bool_)
    moves[first] = False
    moves |= np.isin(ids, list(refused))
    count = int(moves.sum())
    taken = np.concatenate([ids, np.array(list(refused), np.int64)])
    free = np.setdiff1d(np.arange(1, len(taken) + count + 1), taken)
    changed: NDArray[np.int64] = ids.copy()
    changed[moves] = free[:count]
    return changed
