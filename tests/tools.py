"""Helpers of several tests."""

from __future__ import annotations

import signal
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, through containers."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


def finetune_words(data: object, out: object, *more: str) -> list[str]:
    """Command line of a fine-tuning of the small RetinaNet, without a report."""
    given = ["--data", str(data), "--out", str(out), "--model", "retinanet_lite0"]
    return ["finetune", "--no-report", *given, *more]


def with_slow(values: Sequence[str], slow: Collection[str]) -> list[Any]:
    """Parameters of a test, of which some belong to ``make test-all`` only."""
    return [pytest.param(value, marks=[pytest.mark.slow] * (value in slow)) for value in values]


@contextmanager
def no_longer_than(seconds: int) -> Iterator[None]:
    """Raise TimeoutError instead of waiting forever, as for a pipe."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
