"""Compilation of the parts of a model (backbone, neck, head) with ``torch.compile``, if it is faster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import nn

from tldet.models.timing import undisturbed
from tldet.system.determinism import deterministic

log = logging.getLogger(__name__)
COMPILE_WORTH_IT = 0.95  # a compiled step must take less than this fraction of the time of an eager step
_COMPILE_FAULTS = (RuntimeError, OSError)  # no compiler, or a model that torch.compile does not support


def compare_compiled(model: nn.Module, seconds: Callable[[], float]) -> dict[str, Any]:
    """Measure a step in eager mode and compiled; the model is not changed.

    Args:
        model: its children are compiled one by one.
        seconds: measures a step.

    Returns:
        ``eager`` and ``compiled`` in seconds; ``failed`` with the reason instead of ``compiled`` if compilation fails.
    """
    log.info("measuring torch.compile (a minute or two; the result is cached for the next run)")
    found: dict[str, Any] = {}
    with deterministic(next(model.parameters()).device), undisturbed(model):
        found["eager"] = seconds()
        try:
            _compile(model)
            found["compiled"] = seconds()
        except _COMPILE_FAULTS as error:
            found["failed"] = (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            _discard(model)
            model.zero_grad(set_to_none=True)
    return found


def compile_if_faster(model: nn.Module, seconds: Mapping[str, Any], cached: bool) -> str:
    """Compile the children of a model if that was faster.

    Args:
        model: the model.
        seconds: result of :func:`compare_compiled`.
        cached: the result is from an earlier run.

    Returns:
        The choice and its reason, for the log.
    """
    when = "; cached" if cached else ""
    if "failed" in seconds:
        return f"torch.compile: off (failed{when}: {seconds['failed']})"
    times = f"step time: eager {seconds['eager']:.2f} s, compiled {seconds['compiled']:.2f} s{when}"
    if seconds["compiled"] >= COMPILE_WORTH_IT * seconds["eager"]:
        return f"torch.compile: off ({times})"
    _compile(model)
    return f"torch.compile: on ({times})"


@contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run the children of a model in eager mode inside the ``with`` block: another mode would be compiled again."""
    compiled = {part: part._compiled_call_impl for part in model.children()}
    _discard(model)
    try:
        yield
    finally:
        for part, call in compiled.items():
            part._compiled_call_impl = call


def _compile(model: nn.Module) -> None:
    for part in model.children():
        part.compile()


def _discard(model: nn.Module) -> None:
    for part in model.children():
        part._compiled_call_impl = None
