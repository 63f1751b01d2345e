"""Times of video frames."""

from __future__ import annotations

from fractions import Fraction

import pytest

from tldet.inference.timing import CLOCK, spans

NONE = None


@pytest.mark.parametrize(
    ("stated", "starts"),
    [
        ([0, 5, 6, 30], [0, 5, 6, 30]),  # a variable rate stays
        ([7, 8, 9], [0, 1, 2]),  # the first frame is at 0
        ([-3, -2, -1, 0], [0, 1, 2, 3]),
        ([NONE] * 4, [0, 1, 2, 3]),
        ([0, NONE, NONE, 3, 4], [0, 1, 2, 3, 4]),
        ([NONE, NONE, 9, 10], [0, 1, 2, 3]),
        ([0] * 4, [0, 1, 2, 3]),  # a clock that stands still
        ([0, 1, 1, 2, 3], [0, 1, 1.5, 2, 3]),  # one time twice
        ([0, 0, 0, 0, 4, 4, 4, 4, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8]),  # frames stamped in groups
        ([0, 1, 2, 90_000_000, 4, 5], [0, 1, 2, 3, 4, 5]),  # one wrong time
        ([0, 1, 9, 3, 4], [0, 1, 2, 3, 4]),
        ([1000, 1001, 1002, 0, 1, 2], [0, 1, 2, 3, 4, 5]),  # the clock starts again
        ([0, 1, 2, 9_000_000, 9_000_001], [0, 1, 2, 3, 4]),  # the clock jumps
        ([], []),
        ([5], [0]),
    ],
)
def test_frames_get_increasing_times(stated: list[int | None], starts: list[float]) -> None:
    given = [(number, (None if t is None else Fraction(t, 25), None)) for number, t in enumerate(stated)]
    found = list(spans(given, Fraction(1, 25)))
    assert [number for number, _, _ in found] == list(range(len(stated)))
    assert [float(start * 25) for _, start, _ in found] == pytest.approx(starts)
    ends = [start + duration for _, start, duration in found]
    assert ends[:-1] == [start for _, start, _ in found[1:]]
    assert not found or ends[-1] - found[-1][1] == Fraction(1, 25)


def test_every_order_of_times_gives_increasing_ones() -> None:
    import itertools

    for stated in itertools.product((0, 1, 2, 400, None), repeat=5):
        given = [(None, (None if t is None else Fraction(t, 4), None)) for t in stated]
        found = list(spans(given, Fraction(1, 4)))
        assert len(found) == 5
        assert all(duration >= 1 / CLOCK for _, _, duration in found)


@pytest.mark.parametrize(
    ("duration", "end", "last"), [(4, None, 4), (NONE, None, 1), (4, 3, 2), (4, 1, 4), (NONE, 5, 4), (4, 10**8, 4)]
)
def test_the_last_frame_lasts_to_the_stated_end(duration: int | None, end: int | None, last: int) -> None:
    given = [(0, (Fraction(0), None)), (1, (Fraction(1), None if duration is None else Fraction(duration)))]
    found = list(spans(given, Fraction(1), lambda: None if end is None else Fraction(end)))
    assert found[-1][2] == last
