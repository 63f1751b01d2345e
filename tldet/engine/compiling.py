"""``training.compile``: the parts of a model through ``torch.compile``, where that is measured to pay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from tldet.cache import remembered
from tldet.engine.precision import Precision, pass_seconds, timing_key, undisturbed

WORTH_IT = 0.95  # a compiled step must take less than this share of the other's time


def compile_where_it_pays(model: nn.Module, trial: Callable[[], Any], precision: Precision, work: str) -> str:
    """Time a pass forward and backward as written and compiled, and keep the faster way.

    Args:
        model: its children (backbone, pyramid, head) are compiled one by one.
        trial: runs it as it will be trained and returns the loss; see :func:`~tldet.engine.precision.choose`.
        precision: what it computes in.
        work: what else the times depend on.

    Returns:
        What was chosen and why, for the log. The answer is kept (:mod:`tldet.cache`), so that a resumed run computes in
        the same way.
    """
    key = repr((timing_key(model, work), precision.name))
    seconds, known = remembered("compile", key, lambda: _measure(model, trial, precision))
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
    precision.prepare(model)
    with undisturbed(model):
        found: dict[str, Any] = {"eager": pass_seconds(precision, model, trial)}
        _compile(model)
        try:
            found["compiled"] = pass_seconds(precision, model, trial)
        except (RuntimeError, OSError) as error:  # no compiler, or a model it cannot take
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
