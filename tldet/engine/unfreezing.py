"""Parts of a model that begin to learn in the middle of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from tldet.transfer.freeze import Release

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer


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
        self._learning: list[bool] | None = None

    def before_train(self, runner: Trainer) -> None:
        """Freeze what does not learn in the next step."""
        self._set(runner)

    def after_train_iter(self, runner: Trainer, **_: Any) -> None:
        """Give back what learns from the next step on."""
        before = self._learning
        self._set(runner)
        if before is not None and self._learning != before:
            count = self._learning.count(True) if self._learning else 0
            names = [n for one in self.releases[before.count(True) : count] for n in one.names]
            size = sum(self.model.get_parameter(name).numel() for name in names)
            runner.reporter.say(f"after step {runner.state.step}: {size:,} more parameters learn")

    def _set(self, runner: Trainer) -> None:
        step, total, epoch = runner.state.step, runner.state.total, runner.steps_per_epoch
        learning = [one.moment.step(total, epoch) <= step for one in self.releases]
        if learning == self._learning:
            return
        self._learning = learning
        for one, learns in zip(self.releases, learning, strict=True):
            for name in one.names:
                self.model.get_parameter(name).requires_grad_(learns)
        self.model.train()
