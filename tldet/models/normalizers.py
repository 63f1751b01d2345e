"""Running means of the divisors of losses, updated once per training step.

The training loop counts positives over all micro-batches and processes of a step; see
:class:`~tldet.models.losses.LossNormalizers`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from tldet.models.losses import STATE, LossNormalizers
from tldet.system.device import sum_dtype


class RunningNormalizers:
    """Running means of all loss normalizers of a model, for the training loop.

    Args:
        model: any model. Its :class:`LossNormalizers` switch to their running means.
    """

    def __init__(self, model: nn.Module) -> None:
        found = {name: part for name, part in model.named_modules() if isinstance(part, LossNormalizers)}
        self.parts = {name: part for name, part in found.items() if part.kind == "running"}
        self.names = [(part, name) for part in self.parts.values() for name in part.sums]
        for part in self.parts.values():
            part.started = True

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count from zero, for the losses computed inside the ``with`` block."""
        for part in self.parts.values():
            part.counting, part.counted = True, dict.fromkeys(part.counted, 0.0)
        try:
            yield
        finally:
            for part in self.parts.values():
                part.counting = False

    def counted(self, device: torch.device) -> list[Tensor]:
        """Return the counts as scalars on ``device``."""
        dtype = sum_dtype(device)
        return [
            count.to(device, dtype).reshape(())
            if isinstance(count := part.counted[name], Tensor)
            else torch.full((), count, dtype=dtype, device=device)
            for part, name in self.names
        ]

    def update(self, counts: Sequence[float], images: int) -> None:
        """Update the means with a step's counts and number of images over all micro-batches and processes."""
        for (part, name), count in zip(self.names, counts, strict=True):
            part.update(name, count / images)

    def state_dict(self) -> dict[str, Any]:
        """Return the means as plain containers, for a checkpoint."""
        return {key: part.means_state() for key, part in sorted(self.parts.items())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the means from the output of :meth:`state_dict`.

        Raises:
            ValueError: the state belongs to a model with other normalizers.
        """
        expected = {key: set(part.sums) for key, part in self.parts.items()}
        if {key: set(one["sums"]) for key, one in state.items()} != expected:
            raise ValueError(f"loss normalizers {sorted(state)} in the checkpoint, {sorted(expected)} in the model")
        for key, part in self.parts.items():
            for name in STATE:
                setattr(part, name, dict(state[key][name]))
