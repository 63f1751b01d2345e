"""Exponential moving average of the weights of a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Exponential moving average of all trainable parameters; buffers and frozen parameters are those of the model.

    Args:
        model: the model; its trainable parameters are copied.
        decay: weight of the previous average in each step. It is lower in the first steps,
            ``(1 + step) / (10 + step)``, so that the average soon forgets random initial weights.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._model = model
        self.shadow: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Update the average with the weights after step number ``step`` (the first is 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach() for p in self._live.values()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Swap the average into the model inside the ``with`` block; no tensor is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, p in self._live.items():
            p.data, self.shadow[name] = self.shadow[name], p.data

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the model with averaged weights."""
        return {**self._model.state_dict(), **self.shadow}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Load the averages from a result of :meth:`state_dict`."""
        for name, shadow in self.shadow.items():
            shadow.copy_(state[name])
