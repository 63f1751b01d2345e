"""Replacement of the backward pass of depthwise convolutions by :mod:`tldet.models.ops.depthwise`.

An overlay replaces the module; parameters, buffers and state-dict keys stay the same. Calls of ``torch.conv2d`` inside
the module are intercepted, so that any module works, also if it pads (timm's SAME padding) or scales the weight (folded
norm) before the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tldet.models.ops.depthwise import (
    GRADIENTS,
    Call,
    Gradient,
    call_of,
    depthwise_conv2d,
    input_gradient,
    native_gradients,
    supports,
    weight_gradient,
)
from tldet.models.surgery.overlay import Overlay, original, overlay, replace_modules

_WORTH_IT = 0.8  # largest time of a rewritten gradient that is used, relative to the native one
ROUNDS, LIMIT = 5, 0.3  # timed rounds per gradient; no new round after LIMIT seconds


class _Intercept(TorchFunctionMode):
    """Pass every ``torch.conv2d`` inside the ``with`` block to ``replacement``."""

    def __init__(self, replacement: Callable[..., Tensor]) -> None:
        super().__init__()
        self.replacement = replacement

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (self.replacement if func is torch.conv2d else func)(*args, **(kwargs or {}))


class Rewritten(Overlay):
    """Overlay of a module whose depthwise convolution has a rewritten backward pass.

    Without gradients, in export and in compilation, the module behaves exactly as before.
    """

    name_prefix = "Rewritten"
    rewritten_parts: list[Gradient]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the original module."""
        traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
        if traced or not torch.is_grad_enabled():
            return super().forward(*args, **kwargs)
        parts = self.rewritten_parts
        with _Intercept(lambda *conv, **named: depthwise_conv2d(parts, *conv, **named)):
            return super().forward(*args, **kwargs)


def rewrite(model: nn.Module, rewrites: Mapping[str, Sequence[Gradient]]) -> None:
    """Rewrite the backward passes of the named submodules, and restore those of all others.

    Parameters, buffers and state-dict keys stay the same.

    Args:
        model: the model; its submodules are replaced.
        rewrites: gradients to rewrite, by module name.
    """
    replacements: dict[nn.Module, nn.Module] = {}
    for name, module in model.named_modules():
        parts = rewrites.get(name)
        if parts or isinstance(module, Rewritten):
            plain = original(module) if isinstance(module, Rewritten) else module
            replacements[module] = overlay(plain, Rewritten, rewritten_parts=list(parts)) if parts else plain
    replace_modules(model, replacements)


def depthwise_calls(model: nn.Module, run: Callable[[], object]) -> dict[str, Call]:
    """Record the depthwise convolutions of ``model`` while ``run`` runs it, by module name."""
    calls: dict[str, Call] = {}
    inside: list[str] = []

    def convolve(*args: Any, **kwargs: Any) -> Tensor:
        if inside and (call := call_of(*args, **kwargs)):
            calls.setdefault(inside[-1], call)
        return F.conv2d(*args, **kwargs)

    with _tracked(model, inside), _Intercept(convolve), torch.no_grad():
        run()
    return calls


@contextmanager
def _tracked(model: nn.Module, inside: list[str]) -> Iterator[None]:
    """Keep a stack of the names of the running leaf modules in ``inside``."""
    hooks = []
    for name, module in model.named_modules():
        if not any(True for _ in module.children()):
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: inside.append(name)))
            hooks.append(module.register_forward_hook(lambda *_: (inside.pop(), None)[1], always_call=True))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def has_depthwise(model: nn.Module) -> bool:
    """Return True if a parameter or buffer has the shape of a depthwise kernel."""
    tensors = (t for module in model.modules() for t in [*module._parameters.values(), *module._buffers.values()])
    return any(t is not None and t.dim() == 4 and t.shape[1] == 1 and max(t.shape[2:]) > 1 for t in tensors)


def faster_parts(calls: Mapping[str, Call], dtype: torch.dtype) -> dict[str, list[Gradient]]:
    """Find the gradients that are faster in rewritten form on this machine, by module name, for :func:`rewrite`.

    Args:
        calls: output of :func:`depthwise_calls`.
        dtype: data type of the convolutions.
    """
    found = {call: [p for p in GRADIENTS if _is_faster(p, call, dtype)] for call in dict.fromkeys(calls.values())}
    return {name: found[call] for name, call in calls.items() if found[call]}


def _is_faster(part: Gradient, call: Call, dtype: torch.dtype) -> bool:
    """Time both forms alternately on random channels_last tensors, without the first round."""
    g = call.geometry
    if not supports(part, call.kernel, g):
        return False
    x = torch.randn(call.shape).to(dtype, memory_format=torch.channels_last)
    weight = torch.randn(call.shape[1], 1, *call.kernel).to(dtype)
    grad = torch.randn_like(F.conv2d(x, weight, None, g.stride, g.padding, g.dilation, x.shape[1]))
    rewritten = {
        "input": lambda: input_gradient(grad, x.shape, weight, g),
        "weight": lambda: weight_gradient(grad, x, weight, g),
    }
    forms = (lambda: native_gradients(grad, x, weight, g, (part,)), rewritten[part])
    best = [float("inf")] * 2
    begin = time.perf_counter()
    for number in range(ROUNDS + 1):
        if number > 1 and time.perf_counter() - begin > LIMIT:
            break
        for form, run in enumerate(forms):
            start = time.perf_counter()
            run()  # type: ignore[no-untyped-call]
            if number:
                best[form] = min(best[form], time.perf_counter() - start)
    return best[1] < _WORTH_IT * best[0]
