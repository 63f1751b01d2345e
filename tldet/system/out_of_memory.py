"""Running out of memory: recognized, reported in one line, and avoided by smaller batches."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor

from tldet.errors import TrainingError

log = logging.getLogger(__name__)

B = TypeVar("B")
_T = TypeVar("_T")
# Messages of RuntimeErrors of CUDA, cuBLAS, MPS and the CPU's allocator.
SIGNS = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "not enough memory", "can't allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the device or the host has no memory left."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


def rows_of(batch: B, rows: slice) -> B:
    """Return some images of a batch (a dataclass with one row of each tensor and list per image), padded as before."""
    values = {one.name: getattr(batch, one.name) for one in fields(batch)}  # type: ignore[arg-type]
    parts = {name: value[rows] for name, value in values.items() if isinstance(value, (Tensor, list))}
    return replace(batch, **parts)  # type: ignore[type-var]


def split(batch: Any, parts: int) -> list[Any]:
    """Divide a batch into up to ``parts`` batches of nearly equal size."""
    count = len(batch.image_ids)
    parts = min(parts, count)
    if parts <= 1:
        return [batch]
    edges = [count * part // parts for part in range(parts + 1)]
    return [rows_of(batch, slice(a, b)) for a, b in pairwise(edges)]


def shape_of(batches: Sequence[Any]) -> str:
    """Describe the largest of some batches: ``batch size 4, images 800 x 1344``."""
    largest = max(batches, key=lambda batch: batch.images.numel())
    height, width = largest.images.shape[-2:]
    return f"batch size {len(largest.image_ids)}, images {height} x {width} (height x width, padded)"


def place_of(device: torch.device) -> str:
    """Name a device with its memory: ``cuda:0 (79.1 GiB)``."""
    if device.type != "cuda":
        return str(device)
    return f"{device} ({torch.cuda.get_device_properties(device).total_memory / 2**30:.1f} GiB)"


def free(device: torch.device) -> None:
    """Return cached blocks to the device, so that smaller ones can be made of them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


class OutOfMemoryError(TrainingError):
    """A step does not fit into memory; the weights are as before the step if ``whole``."""

    def __init__(self, message: object = "", whole: bool = True) -> None:
        super().__init__(message)
        self.whole = whole


class Smaller:
    """Calls a function with batches of an evaluation, or with smaller and smaller parts of them if memory runs out.

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
        waiting = split(batch, self.parts)
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
            waiting = [smaller for one in waiting for smaller in split(one, 2)]
        return done

    def _reduce(self, part: Any, device: torch.device) -> None:
        count = len(part.image_ids)
        if count == 1:
            raise OutOfMemoryError(
                f"out of memory on {place_of(device)} in evaluation: {shape_of([part])}; use smaller images (Resize in "
                "the transforms of the split) or another device",
                whole=True,
            )
        free(device)
        self.parts *= 2
        log.warning(
            "out of memory on %s in evaluation: %s; continuing with half of that (set %s)",
            place_of(device),
            shape_of([part]),
            self._key,
        )
