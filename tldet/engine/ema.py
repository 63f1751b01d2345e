"""Exponential moving average of the weights (Polyak and Juditsky 1992)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """A smoothed shadow of every trainable parameter; buffers and frozen parameters are the model's own.

    Args:
        model: the model; its trainable parameters are copied.
        decay: the share of the old average that stays at each step. In the beginning it is lower,
            ``(1 + step) / (10 + step)``, so that the random start is soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self._live = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._model = model
        self.shadow: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after step number ``step`` (the first is 1)."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.shadow.values()), [p.detach() for p in self._live.values()], 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model holds the average inside the ``with`` block; nothing is copied, the tensors trade places."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, p in self._live.items():
            p.data, self.shadow[name] = self.shadow[name], p.data

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state of the model with averaged weights: it loads like any other."""
        return {**self._model.state_dict(), **self.shadow}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the averages back from what :meth:`state_dict` gave."""
        for name, shadow in self.shadow.items():
            shadow.copy_(state[name])
