"""Loss normalizers by running means, so that the gradient of an image does not depend on the rest of its batch.

If a loss is divided by the number of positives in its batch, the weight of an image depends on the batch size, and an
image without objects can outweigh others by a factor of hundreds. Here the divisor is a running mean of the positives
per image over previous optimizer steps (as in Detectron2's dense detectors), times the number of images, so that the
loss of a batch is a mean over images. The training loop counts over all micro-batches and processes and updates the
means once per step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tldet.system.device import sum_dtype

_MOMENTUM = 0.9  # of the running means, which cover about ten steps
SLOW = 0.99  # in validation, whose losses are compared over a run: means over ten steps vary by several percent
STATE = ("sums", "weights", "slow_sums", "slow_weights")
Normalizer = Literal["running", "batch"]
POSITIVES = 100.0  # positives per image of a one-stage head assumed before the first step


class LossNormalizers(nn.Module):
    """Divisors of the losses of a head, one for each count.

    Outside of a training run, the count of the batch is the divisor, as for "batch". Validation during a run (eval
    mode) uses means over about a hundred steps and does not change them. The means are not part of the model's state
    dict: a checkpoint stores them in its training state.

    Args:
        kind: "running", or "batch" for the count of the batch (mmdet, torchvision).
        initial: count per image assumed before the first step, by name. It has the weight of one step, so that a first
            step with few positives does not inflate the loss of the second one. Choose it rather too high: a high
            value weakens one step, a low one disturbs Adam's second moments for many steps.
    """

    def __init__(self, kind: Normalizer, **initial: float) -> None:
        super().__init__()
        self.kind = kind
        self.started = self.counting = False
        self.sums, self.weights = dict(initial), dict.fromkeys(initial, 1.0)
        self.slow_sums, self.slow_weights = dict.fromkeys(initial, 0.0), dict.fromkeys(initial, 0.0)
        self.counted: dict[str, float | Tensor] = dict.fromkeys(initial, 0.0)

    def divisor(
        self, name: str, count: float | Tensor, images: int, *, batch: float | Tensor | None = None
    ) -> float | Tensor:
        """Return the divisor of a loss that is summed over a batch.

        Args:
            name: name of the count.
            count: count in this batch.
            images: number of images in this batch.
            batch: divisor for kind "batch"; None takes the count, at least 1.
        """
        if self.kind == "running" and self.counting:
            self.counted[name] = self.counted[name] + (count.detach() if isinstance(count, Tensor) else count)
        if self.kind == "running" and self.started:
            return self.mean(name) * images
        if batch is not None:
            return batch
        return count.clamp(min=1) if isinstance(count, Tensor) else max(count, 1)

    def mean(self, name: str) -> float:
        """Return the running mean of a count per image; in eval mode the slow one, once a step has been counted."""
        if self.slow_weights[name] and not self.training:
            return self.slow_sums[name] / self.slow_weights[name]
        return self.sums[name] / self.weights[name]

    def update(self, name: str, count: float) -> None:
        """Update a running mean with the count per image of one step, unless that is 0.

        Steps without any object would lower the mean and so inflate later losses.
        """
        if not 0 < count < math.inf:
            return
        for keep, sums, weights in (
            (_MOMENTUM, self.sums, self.weights),
            (SLOW, self.slow_sums, self.slow_weights),
        ):
            sums[name] = keep * sums[name] + count
            weights[name] = keep * weights[name] + 1

    def means_state(self) -> dict[str, dict[str, float]]:
        """Return the running means as plain containers."""
        return {part: dict(getattr(self, part)) for part in STATE}


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
