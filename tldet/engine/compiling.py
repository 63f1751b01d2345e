"""``training.compile``: the parts of a model through ``torch.compile``, where that is measured to pay."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from tldet.cache import remembered
from tldet.engine.precision import Precision, pass_seconds, timing_key, undisturbed
from tldet.engine.state import deterministic

log = logging.getLogger(__name__)
WORTH_IT = 0.95  # a compiled step must take less than this share of the other's time
FAULTS = (RuntimeError, OSError)  # no compiler, or a model it cannot take


def measure_compiled(
    model: nn.Module, trial: Callable[[], Any], precision: Precision, work: str
) -> tuple[dict[str, Any], bool]:
    """Time a pass forward and backward as written and compiled; the model is left as it was.

    Args:
        model: its children (backbone, pyramid, head) are compiled one by one.
        trial: runs it as it will be trained and returns the loss; see :func:`~tldet.engine.precision.choose`.
        precision: what it computes in.
        work: what else the times depend on.

    Returns:
        For :func:`compile_where_it_pays`. It is kept (:mod:`tldet.cache`), so that a resumed run computes in the same
        way.
    """
    key = repr((timing_key(model, work), precision.name, *sorted(precision.rewrites)))
    return remembered("compile", key, lambda: _measure(model, trial, precision))


def compile_where_it_pays(model: nn.Module, measured: tuple[dict[str, Any], bool]) -> str:
    """Compile the parts if that was faster; returns what was chosen and why, for the log."""
    seconds, known = measured
    when = " at an earlier time" if known else ""
    if "failed" in seconds:
        return f"not compiled: torch.compile failed{when}: {seconds['failed']}"
    told = f"measured {seconds['eager']:.2f} s as written, {seconds['compiled']:.2f} s compiled{when}"
    if seconds["compiled"] >= WORTH_IT * seconds["eager"]:
        return f"not compiled: {told}"
    _compile(model)
    return f"compiled: {told}"


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """The parts of a model without their compiled forms for a while: another mode would be compiled anew."""
    compiled = {part: part._compiled_call_impl for part in model.children()}
    _forget(model)
    try:
        yield
    finally:
        for part, call in compiled.items():
            part._compiled_call_impl = call


def _measure(model: nn.Module, trial: Callable[[], Any], precision: Precision) -> dict[str, Any]:
    log.info("measuring torch.compile, which takes a minute or two; the answer is kept for the next run")
    precision.prepare(model)
    found: dict[str, Any] = {}
    with deterministic(next(model.parameters()).device), undisturbed(model):
        found["eager"] = pass_seconds(precision, model, trial)
        try:
            _compile(model)
            found["compiled"] = pass_seconds(precision, model, trial)
        except FAULTS as error:
            found["failed"] = (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            _forget(model)
            model.zero_grad(set_to_none=True)
    return found


def _compile(model: nn.Module) -> None:
    for part in model.children():
        part.compile()


def _forget(model: nn.Module) -> None:
    for part in model.children():
        part._compiled_call_impl = None
