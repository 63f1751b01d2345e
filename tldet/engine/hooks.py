"""Callbacks that a config can name: snapshots of the weights, and a file that stops a run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tldet.engine.callbacks import Callback
from tldet.engine.schedule import falls_due
from tldet.errors import ConfigError
from tldet.output import make_folder
from tldet.registry import HOOKS

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

log = logging.getLogger(__name__)


@HOOKS.register_module()
class WeightsSnapshot(Callback):
    """Write the weights (the averaged ones where there are any) as safetensors now and then; all of them stay.

    Args:
        every: epochs between files.
        folder: where, inside the run's folder.
    """

    def __init__(self, every: float = 1.0, folder: str = "snapshots") -> None:
        if not every > 0:
            raise ConfigError(f"hooks: WeightsSnapshot.every must be above 0, not {every}")
        self.every = every
        self.folder = folder

    def after_train_iter(
        self,
        runner: Trainer,
        batch_idx: int,
        data_batch: Any = None,  # noqa: ARG002
        outputs: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Write a file when an epoch boundary was just passed."""
        from tldet import checkpoint

        if not (runner.world.main and falls_due(batch_idx + 1, self.every, runner.steps_per_epoch)):
            return
        folder = make_folder(runner.work_dir / self.folder)
        weights = {name: tensor.detach().contiguous() for name, tensor in runner.deployed_weights().items()}
        checkpoint.save_weights(
            folder / f"weights_{batch_idx + 1:08d}.safetensors", weights, {"step": str(batch_idx + 1)}
        )


@HOOKS.register_module()
class StopFile(Callback):
    """End training as Ctrl-C does when a file appears in the run's folder: for runs nobody sits in front of.

    Args:
        name: the file's name; it is removed when it was seen.
    """

    def __init__(self, name: str = "STOP") -> None:
        self.name = name

    def after_train_iter(
        self,
        runner: Trainer,
        batch_idx: int,  # noqa: ARG002
        data_batch: Any = None,  # noqa: ARG002
        outputs: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> None:
        """Look for the file."""
        path = runner.work_dir / self.name
        if path.exists():
            path.unlink(missing_ok=True)  # another process may have seen it too
            runner.stop(f"{path} appeared")
