"""Findings about duplicate images, within a split and between splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records
from tldet.data.similar import Pair, find_pairs, read_thumbnails
from tldet.data.tracking import Track
from tldet.system.inputs import real_path


class _SplitImage(NamedTuple):
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
    images = [_SplitImage(one, position, path) for one in splits for position, path in enumerate(one.paths)]
    for pair in find_pairs(read_thumbnails([image.path for image in images], read), compare):
        first, second = images[pair.first], images[pair.second]
        listed_twice = first.records is second.records and real_path(first.path) == real_path(second.path)
        if not listed_twice:  # check_names reports such entries
            yield _finding(first, second, pair)


def _finding(first: _SplitImage, second: _SplitImage, pair: Pair) -> Finding:
    apart = first.records is not second.records
    code = f"{'leak' if apart else 'image'}-{'identical' if pair.identical else 'similar'}"
    how = f", {pair.mirror}" if pair.mirror else ""
    what = "is identical to" if pair.identical else f"is nearly identical (correlation {pair.correlation:.3f}{how}) to"
    where = f" in {first.records.split or first.records.file.name}" if apart else ""
    fix = "keep both in the same split" if apart else "keep one of them"
    text = f"{what} {first.path}{where}"
    return second.records.of_image(code, second.position, text, fix=fix, related=str(first.path))
