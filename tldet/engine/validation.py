"""Measuring a model in the middle of its training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import nn

from tldet.engine.compiling import as_written
from tldet.engine.ema import Ema
from tldet.engine.precision import Precision
from tldet.engine.settings import TrainSettings
from tldet.errors import ConfigError

Evaluate = Callable[[nn.Module], Mapping[str, float]]
NOTHING = -1.0  # COCO's value of a metric without ground truth


def measure(model: nn.Module, evaluate: Evaluate, ema: Ema | None, precision: Precision) -> dict[str, float]:
    """What ``evaluate`` says of the model in eval mode, with averaged weights where there are any."""
    model.eval()
    try:
        averaged = ema.applied() if ema else nullcontext()
        with averaged, as_written(model), torch.no_grad(), precision.autocast():
            return {name: float(value) for name, value in evaluate(model).items()}
    finally:
        model.train()


def best_of(metrics: Mapping[str, float], settings: TrainSettings) -> float | None:
    """Return the metric that selects ``best.pt``; None if there was nothing to evaluate.

    Raises:
        ConfigError: the evaluator gives no such metric.
    """
    name = settings.best_metric
    if name not in metrics:
        raise ConfigError(f"training.best_metric {name!r} is none of {', '.join(metrics)}")
    return None if metrics[name] == NOTHING else metrics[name]
