"""Copies to and from an accelerator, and indices of masks, for which the host waits as rarely as possible.

A GPU runs behind the host. When the host reads a value from it, such as the number of true entries of a mask, it waits
until the GPU has finished its earlier work, and afterwards the GPU waits for new work.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor


class Known(NamedTuple):
    """Facts about the ground truth of an image, so that the host does not read them from a device again.

    Attributes:
        ignore: the tensor that ``objects`` and ``crowds`` describe.
        labelled: the tensor that ``partial`` describes, or None.
        objects: (G,) int64 rows that are objects.
        crowds: (C,) int64 rows that are crowd regions.
        partial: some class was not annotated.
    """

    ignore: Tensor
    labelled: Tensor | None
    objects: Tensor
    crowds: Tensor
    partial: bool

    @classmethod
    def of(cls, ignore: Tensor, labelled: Tensor | None) -> Known:
        """Read the facts."""
        partial = labelled is not None and not bool(labelled.all())
        return cls(ignore, labelled, (~ignore).nonzero().flatten(), ignore.nonzero().flatten(), partial)

    def describes(self, ignore: Tensor, labelled: Tensor | None) -> bool:
        """Whether the facts are about these very tensors."""
        return self.ignore is ignore and self.labelled is labelled


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a host tensor on ``device``; the host does not wait for a CUDA device to finish its earlier work."""
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=device.type == "cuda")


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return float32 numbers on the device of ``like``."""
    return send(torch.tensor(values, dtype=torch.float32), like.device)


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype for sums of losses: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def true_rows(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return the indices (n,) of the true entries of each mask (N,); the host waits twice, not once per mask."""
    if len(masks) < 3 or masks[0].device.type == "cpu":
        return [mask.nonzero().flatten() for mask in masks]
    counts = torch.stack([mask.count_nonzero() for mask in masks]).tolist()
    rows = torch.split(torch.cat(list(masks)).nonzero().flatten(), counts)
    starts = accumulate((len(mask) for mask in masks), initial=0)
    return [part - start for part, start in zip(rows, starts, strict=False)]


def fetch(tensors: Sequence[Tensor], device: torch.device | str = "cpu") -> list[Tensor]:
    """Return tensors on ``device``. Those of an accelerator come to the host in one copy, so the host waits once."""
    if torch.device(device).type != "cpu":
        return [tensor.to(device) for tensor in tensors]
    there = [place for place, tensor in enumerate(tensors) if tensor.device.type != "cpu"]
    there.sort(key=lambda place: -tensors[place].element_size())  # each part starts at a multiple of its element size
    flat = [tensors[place].flatten().view(torch.uint8) for place in there]
    parts = torch.split(torch.cat(flat).cpu(), [len(part) for part in flat]) if flat else ()
    found = dict(zip(there, parts, strict=True))
    return [found[place].view(t.dtype).view(t.shape) if place in found else t for place, t in enumerate(tensors)]
