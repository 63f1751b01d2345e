"""Increasing times of video frames, also for files with missing, repeated or wrong time stamps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import TypeVar

_T = TypeVar("_T")
Span = tuple[Fraction | None, Fraction | None]  # start and duration in seconds, None if not stated

CLOCK = Fraction(90000)  # time base of written videos, ticks per second
BACKWARD, FORWARD = (
    Fraction(1),
    Fraction(3600),
)  # seconds; larger steps backward or forward are breaks in a file's clock


def spans(
    frames: Iterable[tuple[_T, Span]], period: Fraction, end: Callable[[], Fraction | None] = lambda: None
) -> Iterator[tuple[_T, Fraction, Fraction]]:
    """Assign a start and a duration in seconds to frames in presentation order.

    The first frame starts at 0. A frame without a time follows the previous one after ``period``. A repeated time, or
    one that is inconsistent with its neighbors, is replaced by a time between them, or by one a period later if there
    is none. After a break in the file's clock, times continue one ``period`` after the last frame before the break.

    Args:
        frames: frames with start and duration according to the file.
        period: duration of a frame at the nominal rate.
        end: returns the end of the last frame according to the file; called when that frame is reached.
    """
    clock = _Clock(period)
    held: tuple[_T, Fraction] | None = None
    waiting: tuple[_T, Span] | None = None
    for coming in chain(frames, (None,)):
        if waiting is not None:
            frame, (stated, duration) = waiting
            start = clock.start_of(stated, coming[1][0] if coming else None)
            if held is not None:
                yield *held, start - held[1]
            held = (frame, start)
            if coming is None:
                yield *held, _last(stated, duration or period, end())
        waiting = coming


def _last(start: Fraction | None, duration: Fraction, end: Fraction | None) -> Fraction:
    """Compute the duration of the last frame: up to the stated end if that is plausible."""
    left = end - start if end is not None and start is not None else duration
    return left if 1 / CLOCK <= left <= FORWARD else min(duration, FORWARD)


class _Clock:
    """Computes the time of each frame from the stated times of this frame and the next one."""

    def __init__(self, period: Fraction) -> None:
        self._period = period
        self._stated: Fraction | None = None  # the last time the file stated
        self._time: Fraction | None = None  # of the previous frame
        self._offset = Fraction(0)  # added to the times in the file

    def start_of(self, stated: Fraction | None, coming: Fraction | None) -> Fraction:
        """Return the time of a frame, given the stated times of this frame and the next one."""
        previous, last = self._time, self._stated
        if previous is None:
            self._time, self._stated, self._offset = Fraction(0), stated, -(stated or Fraction(0))
        elif stated is None:
            self._time = previous + self._period
        elif last is not None and coming is not None and last < coming < stated:  # out of line with both neighbors
            self._time = self._between(previous, coming)
        else:
            if last is None or not -BACKWARD <= stated - last <= FORWARD:
                self._offset = previous + self._period - stated
            self._stated = stated
            time = stated + self._offset
            self._time = time if time - previous >= 1 / CLOCK else self._between(previous, coming)
        return self._time

    def _between(self, previous: Fraction, coming: Fraction | None) -> Fraction:
        room = Fraction(0) if coming is None else coming + self._offset - previous
        return previous + (room / 2 if 2 / CLOCK <= room <= 2 * self._period else self._period)
