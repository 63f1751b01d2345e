"""Measurement of forward and backward passes that leaves the model as it was."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from tldet.system.device import cpu_type


def timing_key(model: nn.Module, work: str) -> str:
    """Return everything that the duration of a pass depends on: processor, model and ``work`` (such as image size)."""
    layers = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    kinds = sorted(Counter(type(module).__name__ for module in model.modules()).items())
    device = next(model.parameters()).device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    machine = (platform.machine(), cpu_type(), torch.get_num_threads(), str(torch.__version__), device.type, gpu)
    return repr((machine, kinds, model.training, layers, work))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Restore the buffers of the model and the state of torch's random generators after the ``with`` block."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def pass_seconds(
    model: nn.Module, trial: Callable[[], Any], autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> float:
    """Measure a pass: the better of two runs after one that is not counted.

    Args:
        model: its gradients are cleared.
        trial: runs the forward pass. If it returns a loss, the backward pass is measured too.
        autocast: context of the forward pass.

    Returns:
        Seconds.
    """
    best, device = float("inf"), next(model.parameters()).device
    for run in range(3):
        _synchronize(device)
        start = time.perf_counter()
        with autocast():
            out = trial()
        if isinstance(out, torch.Tensor) and out.requires_grad:
            torch.autograd.backward(out.sum())
        _synchronize(device)
        model.zero_grad(set_to_none=True)
        if run:
            best = min(best, time.perf_counter() - start)
    return best


def _synchronize(device: torch.device) -> None:
    """Wait until a GPU has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
