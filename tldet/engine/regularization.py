"""Moving average of the weights, L2-SP, and gradual unfreezing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tldet import checkpoint
from tldet.errors import ConfigError, TrainingError
from tldet.models.backbones import within
from tldet.transfer.freeze import Release

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

KEY = "l2_sp"  # of the starting weights among the state of training


class Unfreezing:
    """A hook that keeps what learns later frozen until its moment.

    What learns in a step is a function of the step alone, so a resumed run learns what the run left alone would have.
    A frozen parameter has no gradient: optimizers pass over it and keep no state for it, and neither the gradient norm
    nor the average of the weights feels it.

    Args:
        model: whose parameters they are; all of them learn by now, so that optimizer and average know them.
        releases: what learns when.
    """

    def __init__(self, model: nn.Module, releases: Sequence[Release]) -> None:
        self.model, self.releases = model, releases
        self._trainable: list[bool] | None = None

    def before_train(self, runner: Trainer) -> None:
        """Freeze what does not learn in the next step."""
        self._set(runner)

    def after_train_iter(self, runner: Trainer, **_: Any) -> None:
        """Give back what learns from the next step on."""
        before = self._trainable
        self._set(runner)
        if before is not None and self._trainable != before:
            count = self._trainable.count(True) if self._trainable else 0
            names = [n for one in self.releases[before.count(True) : count] for n in one.names]
            size = sum(self.model.get_parameter(name).numel() for name in names)
            runner.reporter.say(f"after step {runner.state.step}: {size:,} more parameters learn")

    def _set(self, runner: Trainer) -> None:
        step, total, epoch = runner.state.step, runner.state.total, runner.steps_per_epoch
        learning = [one.moment.step(total, epoch) <= step for one in self.releases]
        if learning == self._trainable:
            return
        self._trainable = learning
        for one, is_trained in zip(self.releases, learning, strict=True):
            for name in one.names:
                self.model.get_parameter(name).requires_grad_(is_trained)
        self.model.train()


@dataclass(frozen=True)
class L2SPSettings:
    """The ``l2_sp`` section of a config (Li, Grandvalet and Davoine 2018, section 3).

    Attributes:
        alpha: strength of the penalty ``alpha / 2 * ||w - w0||^2`` on weights that came from the start ``w0``.
        on: the ``backbone``'s, or ``all`` that were carried from the start.

    Raises:
        ConfigError: a value is out of range.
    """

    alpha: float
    on: Literal["backbone", "all"] = "backbone"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"l2_sp.alpha must be above 0, not {self.alpha}")


def anchored(model: nn.Module, carried: Sequence[str], settings: L2SPSettings) -> list[str]:
    """Names of the parameters that are pulled: they learn, came from the start, and are of the part that is meant.

    Args:
        model: the model.
        carried: names of tensors that came from the start.
        settings: which part is meant.

    Raises:
        ConfigError: there are none.
    """
    came = set(carried)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad and name in came]
    if settings.on == "backbone":
        names = [name for name in names if within(name, ["backbone"])]
    if not names:
        raise ConfigError(
            f"l2_sp: nothing that learns in {settings.on} came from pretrained weights; leave the section out"
        )
    return names


def saved_initial(folder: str | Path) -> dict[str, Tensor]:
    """The starting weights that the newest readable checkpoint of a run keeps; empty where there is no checkpoint.

    Raises:
        TrainingError: the run had no ``l2_sp`` so far, so nobody knows where it started.
    """
    found = checkpoint.newest_readable(folder)
    if found is None:
        return {}
    start: dict[str, Tensor] | None = (found[1].get("training") or {}).get(KEY)
    if start is None:
        raise TrainingError(f"{found[0]}: keeps no start for l2_sp, the run had none so far; leave l2_sp out")
    return start


class L2SP:
    """A hook that adds the penalty's gradient, ``alpha * (w - w0)``, to that of each pulled weight.

    It is added right before the optimizer's step and behind clipping, where SGD adds its weight decay: L2-SP is weight
    decay with another origin, so it takes its place. The pulled weights therefore have no weight decay of their own
    (:func:`~tldet.transfer.param_groups.build_optimizer`, ``undecayed``): not SGD's, which would pull to 0 at the
    same time, and not AdamW's decoupled one, which would shrink them whatever the penalty says. Under AdamW the penalty
    is still a part of the gradient, as in the paper, and so is divided by the gradient's running size; it is not
    decoupled. All other weights keep their weight decay, the paper's ``beta``.

    Args:
        model: the model.
        names: which of its parameters are pulled.
        alpha: strength of the penalty.
        start: where they started, when that is not where they are when training begins: of a resumed run.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], alpha: float, start: Mapping[str, Tensor] | None = None
    ) -> None:
        self.parameters = {name: model.get_parameter(name) for name in names}
        self.alpha = alpha
        self._given = dict(start or {})
        self.start: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_train(self, runner: Trainer) -> None:
        """Keep the start, laid out as the weights are, and join the optimizer."""
        for name, parameter in self.parameters.items():
            self.start[name] = torch.empty_like(parameter).copy_(self._given.pop(name, parameter))
        runner.optimizer.register_step_pre_hook(self._pull)

    def before_save_checkpoint(self, runner: Trainer, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """A resumed run is pulled to the same start."""
        if checkpoint["training"] is not None:
            checkpoint["training"][KEY] = self.start

    @torch.no_grad()
    def _pull(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        moving = {name: p for name, p in self.parameters.items() if p.grad is not None}  # the others are frozen
        if not moving:
            return
        grads = [p.grad for p in moving.values() if p.grad is not None]
        away = torch._foreach_sub(list(moving.values()), [self.start[name] for name in moving])
        torch._foreach_add_(grads, away, alpha=self.alpha)


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
