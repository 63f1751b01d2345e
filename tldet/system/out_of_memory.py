"""Recognition of out-of-memory errors, their messages, and retries with smaller batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from tldet.errors import TrainingError

log = logging.getLogger(__name__)

B = TypeVar("B")
_T = TypeVar("_T")
# Texts in RuntimeErrors of CUDA, cuBLAS, MPS and the CPU allocator.
_SIGNS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "not enough memory", "can't allocate memory")


class OutOfMemoryError(TrainingError):
    """A step or an evaluation does not fit into memory; ``whole`` is False if only some weights are updated."""

    def __init__(self, message: object = "", whole: bool = True) -> None:
        super().__init__(message)
        self.whole = whole


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an error of torch or Python that means that the device or the host is out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def rows_of(batch: B, rows: slice) -> B:
    """Return some images of a batch (a dataclass with one row of each tensor and list per image), padded as before."""
    values = {one.name: getattr(batch, one.name) for one in fields(batch)}  # type: ignore[arg-type]
    parts = {name: value[rows] for name, value in values.items() if isinstance(value, (Tensor, list))}
    return replace(batch, **parts)  # type: ignore[type-var]


def split_batch(batch: Any, parts: int) -> list[Any]:
    """Split a batch into up to ``parts`` batches of nearly equal size."""
    count = len(batch.image_ids)
    parts = min(parts, count)
    if parts <= 1:
        return [batch]
    edges = [count * part // parts for part in range(parts + 1)]
    return [rows_of(batch, slice(a, b)) for a, b in pairwise(edges)]


def describe_batch(batches: Sequence[Any]) -> str:
    """Describe the largest of some batches: ``batch size 4, images 800x1344``."""
    largest = max(batches, key=lambda batch: batch.images.numel())
    height, width = largest.images.shape[-2:]
    return f"batch size {len(largest.image_ids)}, images {height}x{width} (height x width, padded)"


def describe_device(device: torch.device) -> str:
    """Describe a device and its memory: ``cuda:0 (79.1 GiB)``."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB)"


def free(device: torch.device) -> None:
    """Return cached blocks to the device, so that it can allocate smaller ones."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class Smaller:
    """Caller of a function on batches of an evaluation, which are split after memory has run out.

    Detections of an image do not depend on the rest of its batch.

    Args:
        key: config key of the batch size, for the error.
    """

    def __init__(self, key: str = "data.loader.eval_batch_size") -> None:
        self.parts = 1
        self._key = key

    def __call__(self, call: Callable[[Any], _T], batch: Any, device: torch.device) -> list[tuple[Any, _T]]:
        """Return each part of the batch with its result.

        Raises:
            OutOfMemoryError: there is not enough memory for one image.
        """
        done: list[tuple[Any, _T]] = []
        waiting = split_batch(batch, self.parts)
        while waiting:
            part = waiting[0]
            try:
                done.append((part, call(part.to(device))))
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            else:
                waiting.pop(0)
                continue
            self._reduce(part, device)  # outside of the handler: the error keeps tensors alive
            waiting = [smaller for one in waiting for smaller in split_batch(one, 2)]
        return done

    def _reduce(self, part: Any, device: torch.device) -> None:
        text = f"out of memory on {describe_device(device)} in evaluation: {describe_batch([part])}"
        if len(part.image_ids) == 1:
            raise OutOfMemoryError(
                f"{text}; use smaller images (Resize in the transforms of the split) or another device"
            )
        free(device)
        self.parts *= 2
        log.warning("%s; continuing with half the batch size (set %s)", text, self._key)


class StepRetry:
    """Preparation of optimizer steps, so that a step that runs out of memory is repeated with smaller micro-batches.

    Args:
        model: the statistics of its norms are restored before a step is repeated.
        optimizer: optimizer of the model.
        reduce: repeat steps, with micro-batches split into twice as many parts.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, reduce: bool) -> None:
        self._device = next(model.parameters()).device
        self._statistics = [b for m in model.modules() if isinstance(m, _NormBase) for b in m.buffers(recurse=False)]
        self._before = [buffer.clone() for buffer in self._statistics]
        self._optimizer, self._reduce = optimizer, reduce
        self._updating = False
        optimizer.register_step_pre_hook(self._note_update)

    def prepare(self, batches: Sequence[Any], parts: int) -> list[Any]:
        """Store the statistics of the norms before a step; return the micro-batches, each split into ``parts``."""
        self._updating = False
        self._copy(self._before, self._statistics)
        return [part for batch in batches for part in split_batch(batch, parts)]

    def restore(self, batches: Sequence[Any], loaded: int) -> None:
        """Undo a step that ran out of memory, so that it can be repeated with twice as many parts.

        Args:
            batches: micro-batches of the step, as returned by :meth:`prepare`.
            loaded: number of micro-batches as loaded.

        Raises:
            OutOfMemoryError: the micro-batches cannot be reduced (further).
        """
        self._optimizer.zero_grad(set_to_none=True)
        self._copy(self._statistics, self._before)  # also for the checkpoint that is saved before the error
        self._check_reducible(batches, loaded)
        free(self._device)
        text = "out of memory on %s: %s; halving the micro-batch"
        log.warning(text, describe_device(self._device), describe_batch(batches))

    def _check_reducible(self, batches: Sequence[Any], loaded: int) -> None:
        """Raise OutOfMemoryError unless the step can be repeated in smaller parts."""
        largest = max(len(batch.image_ids) for batch in batches)
        if self._reduce and largest > 1 and not self._updating:
            return
        advice = ["use smaller images (short and long of Resize in data.train.transforms)"]
        if largest > 1:
            advice.insert(0, f"set data.loader.batch_size={largest // 2}")
        if not self._reduce and largest > 1:
            advice.append(f"or --on-oom reduce (now {loaded} micro-batches per step)")
        if self._updating:
            advice.append("or freeze layers: the optimizer state does not fit")
        message = f"out of memory on {describe_device(self._device)}: {describe_batch(batches)}; {', '.join(advice)}"
        raise OutOfMemoryError(message, whole=not self._updating)

    def _copy(self, into: list[Tensor], values: list[Tensor]) -> None:
        if into:
            with torch.no_grad():
                torch._foreach_copy_(into, values)

    def _note_update(self, *_: Any) -> None:
        self._updating = True
