"""One optimizer step: loading, forward, backward, check of the loss, clipping, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tldet.engine.distributed import World
from tldet.engine.precision import Precision
from tldet.errors import DataError, TrainingError
from tldet.models.normalizers import RunningNormalizers
from tldet.system.determinism import mix_seed
from tldet.system.device import send, sum_dtype
from tldet.system.out_of_memory import is_out_of_memory


class NotFiniteError(TrainingError):
    """A loss or a gradient is infinite or NaN; the weights are unchanged."""


@dataclass
class StepResult:
    """Result of one optimizer step.

    Attributes:
        loss: sum of the losses, averaged over all images of the step.
        norm: L2 norm of all gradients before clipping.
        parts: each loss by name, averaged over the images of this process; tensors on the device.
        image_ids: image ids of each micro-batch.
        totals: the numbers that ``numbers`` returned, summed over processes; see :class:`Stepper`.
    """

    loss: float = 0.0
    norm: float = 0.0
    parts: dict[str, Tensor] = field(default_factory=dict)
    image_ids: list[list[Any]] = field(default_factory=list)
    totals: list[int] = field(default_factory=list)


def count_images(batches: Sequence[Any]) -> int:
    """Count the images in all batches."""
    return sum(len(batch.image_ids) for batch in batches)


class Stepper:
    """Takes optimizer steps on micro-batches.

    The host waits for the device once per step, for the loss and the gradient norm, which must be finite before weights
    are updated. Everything that processes exchange besides gradients is summed in the same vector.

    Args:
        model: ``model(batch)`` returns a dict of scalar losses in training mode.
        optimizer: optimizer of (some of) the model's parameters.
        precision: precision of the forward pass.
        clip_norm: largest L2 norm of the gradients; None does not clip.
        world: processes of the run; losses and gradients are averaged over the images of all processes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        precision: Precision,
        clip_norm: float | None = None,
        world: World | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.precision = precision
        self.clip_norm = clip_norm
        self.world = world or World()
        self.scaler = precision.scaler()
        self.normalizers = RunningNormalizers(model)
        self.device = next(model.parameters()).device
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._wrapped: nn.Module = model
        self._trainable: list[bool] = []

    def __call__(
        self, batches: Sequence[Any], images: int | None = None, numbers: Callable[[], Sequence[int]] = tuple
    ) -> StepResult:
        """Take one step with the mean gradient of the images in ``batches``.

        Args:
            batches: this process's micro-batches, of any sizes.
            images: number of images in the micro-batches of all processes; None counts them.
            numbers: called while the device computes gradients; returns numbers to be summed over all processes.

        Raises:
            NotFiniteError: the loss or the gradient norm is not finite; the weights are as before the step.
        """
        images = images or self.world.totals(count_images(batches))[0]
        self.optimizer.zero_grad(set_to_none=True)
        result = StepResult()
        loss = self._accumulate(batches, self.world.size / images, result)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
        counts = self._reduce(result, loss, norm, numbers())
        self._check(result)
        self.normalizers.update(counts, images)
        if self.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self._parameters, self.clip_norm, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return result

    def _accumulate(self, batches: Sequence[Any], share: float, result: StepResult) -> Tensor:
        """Accumulate the gradients of all micro-batches, each image weighted by ``share``; return the loss."""
        module, losses = self._module(), []
        with self.normalizers.counting():
            for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
                with module.no_sync() if left and self.world.size > 1 else nullcontext():
                    losses.append(self._backward(module, batch, len(batch.image_ids) * share, result))
        return sum(losses[1:], losses[0])

    def _reduce(self, result: StepResult, loss: Tensor, norm: Tensor, numbers: Sequence[int]) -> list[float]:
        """Set loss and norm to the means over processes; return the summed counts of the loss normalizers."""
        dtype = sum_dtype(loss.device)
        values = [loss.to(dtype), norm.to(loss.device, dtype), *self.normalizers.counted(loss.device)]
        vector = torch.stack(values)
        if self.world.size > 1:
            vector = self.world.sum(torch.cat([vector, send(torch.tensor(numbers, dtype=dtype), vector.device)]))
        loss_sum, norm_sum, *rest = vector.tolist()
        result.loss, result.norm = loss_sum / self.world.size, norm_sum / self.world.size
        counts = rest[: len(values) - 2]
        result.totals = [round(total) for total in rest[len(counts) :]] if self.world.size > 1 else list(numbers)
        return counts

    def _module(self) -> Any:
        """Return the model; with several processes, wrapped to average the gradients of trainable parameters."""
        if self.world.size > 1:
            trainable = [p.requires_grad for p in self._parameters]
            if trainable != self._trainable:
                self._wrapped, self._trainable = self.world.wrapped(self.model), trainable
        return self._wrapped

    def _backward(self, module: Any, batch: Any, share: float, result: StepResult) -> Tensor:
        """Add the gradients of a micro-batch; return its share of the loss, on the device."""
        result.image_ids.append(list(batch.image_ids))
        with self.precision.autocast():
            losses = module(batch.to(self.device))
            total: Tensor = sum(losses.values()) * share
        torch.autograd.backward(self.scaler.scale(total))
        for name, loss in losses.items():
            result.parts[name] = result.parts.get(name, 0.0) + loss.detach().to(sum_dtype(loss.device)) * share
        return total.detach().float()

    def _check(self, result: StepResult) -> None:
        """Raise NotFiniteError before weights are updated; a scaled fp16 gradient may overflow, the scaler skips it."""
        if math.isfinite(result.loss) and math.isfinite(result.norm):
            return
        if math.isfinite(result.loss) and self.scaler.is_enabled() and self.scaler.get_scale() >= 1:
            return
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        parts = ", ".join(f"{key} {float(value):.4g}" for key, value in result.parts.items())
        name = "gradient" if math.isfinite(result.loss) else "loss"
        ids = ", ".join(str(one) for ids in result.image_ids for one in ids)
        rate = f"{max(rates):.3g}" if max(rates) == min(rates) else f"{min(rates):.3g} to {max(rates):.3g}"
        raise NotFiniteError(
            f"the {name} is not finite: {parts}; learning rate {rate}, gradient norm {result.norm:.4g}, images {ids}"
        )


class Feed:
    """Loads the micro-batches of this process, step by step.

    Processes exchange errors and numbers of images together with the loss of the step before: the caller sums
    :meth:`counts` over processes and passes the sums to :meth:`set_totals`.

    Args:
        stream: micro-batches.
        accumulate: micro-batches per step.
        seed: seed of the run; each micro-batch gets the seed of its step.
        world: processes of the run.
    """

    def __init__(self, stream: Iterator[Any], accumulate: int, seed: int, world: World) -> None:
        self._stream, self._accumulate, self._seed, self._world = stream, accumulate, seed, world
        self._step: int | None = None
        self._batches: list[Any] = []
        self._error: DataError | None = None
        self._totals: Sequence[int] | None = None

    def load(self, step: int) -> None:
        """Load the micro-batches of a step (the first is 0), once; an error is raised by :meth:`take`."""
        if self._step == step:
            return
        self._step, self._batches, self._totals = step, [], None
        try:
            for _ in range(self._accumulate):
                self._batches.append(next(self._stream))
                self._batches[-1].seed = mix_seed(self._seed, step)
        except DataError as error:
            self._error = error
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            text = f"out of memory while loading the images of step {step + 1}"
            self._error = DataError(f"{text}: use fewer --workers or a smaller --batch-size")

    def counts(self) -> list[int]:
        """Return the number of errors and of images of this process, to be summed over processes."""
        return [int(self._error is not None), count_images(self._batches)]

    def set_totals(self, totals: Sequence[int]) -> None:
        """Set the sums of :meth:`counts` over processes."""
        self._totals = totals

    def take(self, step: int) -> tuple[list[Any], int]:
        """Return the micro-batches of a step and the number of images in all processes.

        Raises:
            DataError: a process cannot read an image.
        """
        if self._step != step or self._totals is None:
            self.load(step)
            self.set_totals(self._world.totals(*self.counts()))
        assert self._totals is not None
        failed, images = self._totals
        if failed and (error := self._world.first_error(self._error)) is not None:
            raise error
        return self._batches, images
