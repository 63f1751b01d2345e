"""Findings about images that occur more than once, within a split and in two splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records
from tldet.data.similar import Pair, find_pairs, read_thumbnails
from tldet.data.tracking import Track
from tldet.system.inputs import real_path


class _Place(NamedTuple):
    """An image of a split."""

    records: Records
    position: int
    path: Path


def check_copies(splits: Sequence[Records], read: Track = iter, compare: Track = iter) -> Iterator[Finding]:
    """Yield pairs of identical and nearly identical images.

    Args:
        splits: the splits; those without an image folder are left out.
        read: wraps the images that are read, to show progress.
        compare: wraps the blocks that are compared.
    """
    places = [_Place(one, position, path) for one in splits for position, path in enumerate(one.paths)]
    for pair in find_pairs(read_thumbnails([place.path for place in places], read), compare):
        first, second = places[pair.first], places[pair.second]
        listed_twice = first.records is second.records and real_path(first.path) == real_path(second.path)
        if not listed_twice:  # otherwise the check of names reports it
            yield _finding(first, second, pair)


def _finding(first: _Place, second: _Place, pair: Pair) -> Finding:
    apart = first.records is not second.records
    code = f"{'leak' if apart else 'image'}-{'identical' if pair.identical else 'similar'}"
    how = f", {pair.mirror}" if pair.mirror else ""
    what = "has the same bytes as" if pair.identical else f"shows the same (correlation {pair.correlation:.3f}{how}) as"
    where = f" in {first.records.split or first.records.file.name}" if apart else ""
    fix = "keep it in one split" if apart else "keep one of them"
    text = f"{what} {first.path}{where}"
    return second.records.of_image(code, second.position, text, fix=fix, related=str(first.path))
