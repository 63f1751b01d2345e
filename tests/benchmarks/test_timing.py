"""Turns, quartiles and ratios on a clock that a test moves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.child import Served, in_child
from benchmarks.timing import Comparison, Times, alternate, best_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0
        self.called: list[str] = []

    def __call__(self) -> float:
        return self.now

    def side(self, name: str, *seconds: float):
        """A side that takes the given seconds, one after the other and then the last again."""
        left = list(seconds)

        def call() -> float:
            self.called.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return -1.0

        return call


def test_sides_take_turns_and_the_warm_up_does_not_count() -> None:
    clock = Clock()
    reported: list[int] = []
    compared = alternate(
        clock.side("a", 9.0, 1.0, 2.0, 4.0),
        clock.side("b", 50.0, 2.0, 6.0, 4.0),
        3,
        clock=clock,
        on_round=reported.append,
    )
    assert compared.ours.samples == (1.0, 2.0, 4.0)
    assert compared.theirs.samples == (2.0, 6.0, 4.0)
    assert compared.ratios.samples == (2.0, 3.0, 1.0)
    assert reported == [-1, 0, 1, 2]
    assert clock.called == ["b", "a", "a", "b", "b", "a", "a", "b"], "who goes first changes"


def test_the_limit_ends_it_but_not_before_two_rounds() -> None:
    clock = Clock()
    compared = alternate(clock.side("a", 60.0), clock.side("b", 60.0), 10, limit=100.0, warmup=0, clock=clock)
    assert len(compared.ours.samples) == 2
    clock = Clock()
    compared = alternate(clock.side("a", 10.0), clock.side("b", 10.0), 10, limit=100.0, warmup=0, clock=clock)
    assert len(compared.ours.samples) == 5


def test_sides_may_time_themselves() -> None:
    compared = alternate(lambda: 0.5, lambda: 2.0, 2, self_timed=True)
    assert (compared.ours.samples, compared.theirs.samples) == ((0.5, 0.5), (2.0, 2.0))


@pytest.mark.parametrize(
    ("samples", "expected"),
    [((3.0,), (3.0, 3.0, 3.0)), ((4.0, 2.0), (2.5, 3.0, 3.5)), ((5.0, 1.0, 2.0, 3.0, 4.0), (2.0, 3.0, 4.0))],
)
def test_quartiles(samples: tuple[float, ...], expected: tuple[float, float, float]) -> None:
    found = Times(samples).to_dict()
    assert (found["q1"], found["median"], found["q3"]) == expected
    assert found["samples"] == list(samples)


def test_part_of_a_timed_section() -> None:
    part = Comparison(Times((4.0,)), Times((8.0,))).divided(4)
    assert (part.ours.samples, part.theirs.samples, part.ratios.samples) == ((1.0,), (2.0,), (2.0,))


def test_the_best_of_several_runs() -> None:
    clock = Clock()
    assert best_of(clock.side("a", 3.0, 1.0, 2.0), 3, clock) == 1.0


def grab(megabytes: int) -> dict[str, int]:
    """Called in a process of its own."""
    return {"length": len(bytearray(megabytes * 2**20))}


def test_a_separate_process_reports_its_peak_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that holds much must not show in it, as it would in ru_maxrss."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    held = bytearray(300 * 2**20)
    small, large = (in_child("test_timing:grab", megabytes=size) for size in (1, 200))
    assert large["length"] == 200 * 2**20
    assert 195 < large["peak_mb"] - small["peak_mb"] < 205
    assert small["peak_mb"] < len(held) / 2**20
    with pytest.raises(RuntimeError, match="no_such"):
        in_child("test_timing:no_such")


def counting(fail_at: int = 0) -> Callable[[], object]:
    """Calls that a process serves: some that take memory, and one that fails."""
    held: list[bytearray] = []

    def call() -> None:
        held.append(bytearray(20 * 2**20))
        sys.stdout.write("words of a library\n")
        if len(held) == fail_at:
            raise ValueError("the third call")

    if fail_at < 0:
        raise ValueError("at the start")
    return call


def test_a_served_call_is_repeated_and_reports_seconds_and_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with Served("test_timing:counting") as served:
        first = served.peak_mb
        assert all(0 < served() < 1 for _ in range(3))
        assert 55 < served.peak_mb - first < 80
    with pytest.raises(RuntimeError, match="at the start"):
        Served("test_timing:counting", fail_at=-1)
    with Served("test_timing:counting", fail_at=3) as served:
        served(), served()
        with pytest.raises(RuntimeError, match="the third call"):
            served()
        with pytest.raises(RuntimeError, match="failed in its process"):
            served()
