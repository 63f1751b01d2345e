"""Times of video frames: increasing, whatever the file states."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from itertools import chain
from typing import TypeVar

T = TypeVar("T")
Span = tuple[Fraction | None, Fraction | None]  # start and duration in seconds, None if not stated

CLOCK = Fraction(90000)  # ticks per second of written video
NEAR, FORWARD = Fraction(1), Fraction(3600)  # seconds; larger steps back and forward are breaks in a file's clock


def spans(
    frames: Iterable[tuple[T, Span]], period: Fraction, end: Callable[[], Fraction | None] = lambda: None
) -> Iterator[tuple[T, Fraction, Fraction]]:
    """Give frames in order of presentation a start and a duration in seconds.

    The first frame starts at 0. A frame without a time follows the previous one after ``period``. A time that repeats
    or is out of line with its neighbors is replaced by one between them, or by one a period later where there is no
    room. After a break in the file's clock, the following times count from one period after the break.

    Args:
        frames: with the start and duration that the file states.
        period: duration of a frame at the nominal rate.
        end: gives the end of the last frame as the file states it, called when that frame is reached.
    """
    clock = _Clock(period)
    held: tuple[T, Fraction] | None = None
    waiting: tuple[T, Span] | None = None
    for coming in chain(frames, (None,)):
        if waiting is not None:
            frame, (stated, duration) = waiting
            start = clock.place(stated, coming[1][0] if coming else None)
            if held is not None:
                yield *held, start - held[1]
            held = (frame, start)
            if coming is None:
                yield *held, _last(stated, duration or period, end())
        waiting = coming


def _last(start: Fraction | None, duration: Fraction, end: Fraction | None) -> Fraction:
    """Duration of the last frame: up to the stated end, if that can be."""
    left = end - start if end is not None and start is not None else duration
    return left if 1 / CLOCK <= left <= FORWARD else min(duration, FORWARD)


class _Clock:
    """The time of each frame from what the file states of it and of the next one."""

    def __init__(self, period: Fraction) -> None:
        self._period = period
        self._stated: Fraction | None = None  # the last time the file stated
        self._time: Fraction | None = None  # of the previous frame
        self._offset = Fraction(0)  # what is added to the times that the file states

    def place(self, stated: Fraction | None, coming: Fraction | None) -> Fraction:
        """The time of a frame, from the time stated for it and for the frame after it."""
        previous, last = self._time, self._stated
        if previous is None:
            self._time, self._stated, self._offset = Fraction(0), stated, -(stated or Fraction(0))
        elif stated is None:
            self._time = previous + self._period
        elif last is not None and coming is not None and last < coming < stated:  # out of line with both neighbors
            self._time = self._between(previous, coming)
        else:
            if last is None or not -NEAR <= stated - last <= FORWARD:
                self._offset = previous + self._period - stated
            self._stated = stated
            time = stated + self._offset
            self._time = time if time - previous >= 1 / CLOCK else self._between(previous, coming)
        return self._time

    def _between(self, previous: Fraction, coming: Fraction | None) -> Fraction:
        room = Fraction(0) if coming is None else coming + self._offset - previous
        return previous + (room / 2 if 2 / CLOCK <= room <= 2 * self._period else self._period)
