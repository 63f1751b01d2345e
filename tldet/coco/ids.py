"""Ids of annotations: values for missing ones, and renumbering of repeated ones."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import note
from tldet.text import counted

NO_ID, ODD_ID = -(2**63), -(2**63) + 1  # of an annotation without an id; of one whose id is not a 64-bit integer


def renumber_repeated(ids: NDArray[np.int64], refused: Collection[int] = ()) -> NDArray[np.int64]:
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


def renumber_annotations(stated: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """Return unique annotation ids (A,), and notes on those that changed; the first one with a repeated id keeps it."""
    ids = renumber_repeated(stated, (NO_ID, ODD_ID))
    missing, odd = stated == NO_ID, stated == ODD_ID
    repeated = (ids != stated) & ~missing & ~odd
    notes = [
        f"{counted(int(missing.sum()), 'annotation')} without an id: numbered" if missing.any() else "",
        f"{counted(int(odd.sum()), 'annotation')} with an id that is not an integer: renumbered" if odd.any() else "",
        note(repeated, stated, "annotation", "with the id of an earlier one: renumbered"),
    ]
    return ids, [line for line in notes if line]
