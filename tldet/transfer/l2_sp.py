"""L2-SP: weight decay towards the initial weights (Li, Grandvalet and Davoine 2018, section 3)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tldet import checkpoint
from tldet.errors import ConfigError, TrainingError
from tldet.models.backbones import within

KEY = "l2_sp"  # of the initial weights in the training state of a checkpoint


@dataclass(frozen=True)
class L2SPSettings:
    """The ``l2_sp`` section of a config.

    Attributes:
        alpha: strength of the penalty ``alpha / 2 * ||w - w0||^2`` on pretrained weights with initial values ``w0``.
        on: regularize the pretrained weights of the ``backbone``, or ``all`` of them.

    Raises:
        ConfigError: a value is out of range.
    """

    alpha: float
    on: Literal["backbone", "all"] = "backbone"

    def __post_init__(self) -> None:
        if not 0 < self.alpha < math.inf:
            raise ConfigError(f"l2_sp.alpha must be above 0, not {self.alpha}")


def regularized_names(model: nn.Module, loaded: Sequence[str], settings: L2SPSettings) -> list[str]:
    """Return the names of the trainable, pretrained parameters that L2-SP regularizes.

    Args:
        model: the model.
        loaded: names of tensors that were loaded from the initial weights.
        settings: selects the part of the model.

    Raises:
        ConfigError: there are none.
    """
    pretrained = set(loaded)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad and name in pretrained]
    if settings.on == "backbone":
        names = [name for name in names if within(name, ["backbone"])]
    if not names:
        part = "the backbone" if settings.on == "backbone" else "the model"
        raise ConfigError(f"l2_sp: {part} has no trainable pretrained weights; remove the section")
    return names


def saved_initial_weights(folder: str | Path) -> dict[str, Tensor]:
    """Return the initial weights in the newest readable checkpoint of a run; empty if there is no checkpoint.

    Raises:
        TrainingError: the run was trained without ``l2_sp``, so the checkpoint has no initial weights.
    """
    found = checkpoint.newest_readable(folder)
    if found is None:
        return {}
    initial: dict[str, Tensor] | None = (found[1].get("training") or {}).get(KEY)
    if initial is None:
        raise TrainingError(f"{found[0]}: contains no initial weights, the run was trained without l2_sp; remove l2_sp")
    return initial


class L2SP:
    """Hook that adds the gradient of the penalty, ``alpha * (w - w0)``, to that of each regularized weight.

    The gradient is added after clipping, right before the optimizer step, as SGD adds its weight decay. L2-SP replaces
    weight decay: regularized weights have no other one (``undecayed`` of
    :func:`~tldet.transfer.param_groups.build_optimizer`), which would pull them to 0. With AdamW, the penalty is a part
    of the gradient, as in the paper: it is divided by the running size of the gradient, not decoupled. All other
    weights keep their weight decay, the ``beta`` of the paper.

    Args:
        model: the model.
        names: names of the regularized parameters.
        alpha: strength of the penalty.
        initial: initial weights of a resumed run; None takes the current weights when training begins.
    """

    def __init__(
        self, model: nn.Module, names: Sequence[str], alpha: float, initial: Mapping[str, Tensor] | None = None
    ) -> None:
        self.parameters = {name: model.get_parameter(name) for name in names}
        self.alpha = alpha
        self._saved = dict(initial or {})
        self.initial: dict[str, Tensor] = {}

    @torch.no_grad()
    def before_train(self, runner: Any) -> None:
        """Copy the initial weights in the memory layout of the parameters, and register with the optimizer."""
        for name, parameter in self.parameters.items():
            self.initial[name] = torch.empty_like(parameter).copy_(self._saved.pop(name, parameter))
        runner.optimizer.register_step_pre_hook(self._add_gradient)

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Save the initial weights for a resumed run."""
        if checkpoint["training"] is not None:
            checkpoint["training"][KEY] = self.initial

    @torch.no_grad()
    def _add_gradient(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:  # noqa: ARG002
        trained = {name: p for name, p in self.parameters.items() if p.grad is not None}  # the others are frozen
        if not trained:
            return
        grads = [p.grad for p in trained.values() if p.grad is not None]
        distance = torch._foreach_sub(list(trained.values()), [self.initial[name] for name in trained])
        torch._foreach_add_(grads, distance, alpha=self.alpha)
