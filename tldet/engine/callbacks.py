"""Callbacks: base class, checks, snapshots of the weights, and a file that stops a run.

A callback is an mmengine ``Hook``. Hooks written for mmengine work if they use only the hook points of the trainer; a
hook with another point is rejected by name.
"""

from __future__ import annotations

import difflib
import inspect
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmengine.hooks import Hook
from mmengine.runner.priority import get_priority

from tldet.engine.schedule import falls_due
from tldet.errors import ConfigError
from tldet.registry import HOOKS
from tldet.system.output import make_folder

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

POINTS: Mapping[str, tuple[str, ...]] = {  # each hook point with its arguments after the trainer
    "before_run": (),
    "before_train": (),
    "before_train_epoch": (),
    "before_train_iter": ("batch_idx", "data_batch"),
    "after_train_iter": ("batch_idx", "data_batch", "outputs"),
    "after_train_epoch": (),
    "before_val": (),
    "before_val_epoch": (),
    "after_val_epoch": ("metrics",),
    "after_val": (),
    "before_save_checkpoint": ("checkpoint",),
    "after_load_checkpoint": ("checkpoint",),
    "after_train": (),
    "after_run": (),
}
_WORDS = ("before", "after", "on")  # first words of hook points, here or in other toolkits
NEAR_WORD, NEAR_NAME = 0.6, 0.8  # least similarity of a misspelled first word and name, 0 to 1
log = logging.getLogger(__name__)


class Callback(Hook):  # type: ignore[misc]
    """Base class of callbacks; override the methods you need.

    The trainer passes itself as ``runner``: ``runner.model``, ``runner.optimizer``, ``runner.state.step``,
    ``runner.work_dir``, ``runner.world.main`` (write files only if True), ``runner.stop(reason)``. A callback is called
    in every process of a run. State that it keeps between steps belongs in the checkpoint
    (``before_save_checkpoint``, ``after_load_checkpoint``), or a resumed run would lack it.

    Attributes:
        priority: callbacks of higher priority are called first: "VERY_HIGH", "HIGH", "NORMAL", "LOW", ...
    """

    def before_run(self, runner: Trainer) -> None:
        """Run before anything else, before a checkpoint to resume from is loaded."""

    def before_train_epoch(self, runner: Trainer) -> None:
        """Run before the first step of each epoch."""

    def after_train_epoch(self, runner: Trainer) -> None:
        """Run after the last step of each epoch, and of the run."""

    def before_val(self, runner: Trainer) -> None:
        """Run before each validation, before :meth:`before_val_epoch`."""

    def after_val(self, runner: Trainer) -> None:
        """Run after each validation, after :meth:`after_val_epoch`."""

    def after_run(self, runner: Trainer) -> None:
        """Run after everything else, also after a run that was interrupted."""

    def before_train(self, runner: Trainer) -> None:
        """Run before the first step, after a checkpoint to resume from is loaded."""

    def before_train_iter(self, runner: Trainer, batch_idx: int, data_batch: Any = None) -> None:
        """Run before each optimizer step.

        Args:
            runner: the trainer.
            batch_idx: number of the step, from 0.
            data_batch: its micro-batches.
        """

    def after_train_iter(
        self, runner: Trainer, batch_idx: int, data_batch: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> None:
        """Run after each optimizer step.

        Args:
            runner: the trainer.
            batch_idx: number of the step, from 0.
            data_batch: its micro-batches.
            outputs: ``loss`` (their sum, a tensor), ``losses`` (each loss by name, a scalar tensor on the device),
                ``grad_norm`` (before clipping) and ``lr`` (learning rate of each parameter group by name).
        """

    def before_val_epoch(self, runner: Trainer) -> None:
        """Run before each validation."""

    def after_val_epoch(self, runner: Trainer, metrics: Mapping[str, float] | None = None) -> None:
        """Run after each validation.

        Args:
            runner: the trainer.
            metrics: metrics and validation losses.
        """

    def before_save_checkpoint(self, runner: Trainer, checkpoint: dict[str, Any]) -> None:
        """Run before a checkpoint is written; tensors and plain containers may be added to it."""

    def after_load_checkpoint(self, runner: Trainer, checkpoint: dict[str, Any]) -> None:
        """Run when a run is resumed, with the checkpoint."""

    def after_train(self, runner: Trainer) -> None:
        """Run after the last step, also of a run that was interrupted."""


def by_priority(callbacks: Iterable[Any]) -> list[Any]:
    """Sort callbacks by priority, higher priority (mmengine's smaller number) first."""
    return sorted(callbacks, key=lambda callback: int(get_priority(callback.priority)))


def check_callback(callback: Any, name: str = "") -> None:
    """Check that a callback uses only hook points that exist, with their arguments.

    Args:
        callback: a :class:`Callback` or an mmengine ``Hook``.
        name: name in messages; empty for the name of its class.

    Raises:
        ConfigError: it is neither, or has a method that would never be called.
    """
    name = name or f"callback {type(callback).__name__}"
    if not isinstance(callback, Hook):
        raise ConfigError(f"{name}: must be a tldet Callback or an mmengine Hook")
    for method in _own_names(type(callback)):
        if method in POINTS:
            _check_arguments(getattr(callback, method), method, name)
        elif problem := _problem_with(method):
            raise ConfigError(f"{name}.{method}: {problem}")


def _own_names(kind: type[Any]) -> Iterator[str]:
    """Yield the names of methods that are defined outside the two base classes."""
    above = kind.__mro__[: next(n for n, one in enumerate(kind.__mro__) if one in (Callback, Hook))]
    for one in above:
        yield from (name for name, value in vars(one).items() if callable(value) or isinstance(value, staticmethod))


def _problem_with(method: str) -> str | None:
    """Return an error message for a method that looks like a hook point but is not one; None for other methods."""
    if method in Hook.stages or (method.startswith("_") and method in vars(Hook)):
        return f"tldet's trainer has no such hook point; it has {', '.join(POINTS)}"
    word = re.split(r"_|(?=[A-Z])", method.strip("_"))[0].lower()
    if method.startswith("__") or not difflib.get_close_matches(word, _WORDS, n=1, cutoff=NEAR_WORD):
        return None
    plain = {point.replace("_", ""): point for point in POINTS}
    near = difflib.get_close_matches(method.replace("_", "").lower(), list(plain), n=1, cutoff=NEAR_NAME)
    if not near and word not in _WORDS:
        return None
    hint = f"did you mean {plain[near[0]]}?" if near else f"hook points are {', '.join(POINTS)}"
    return f"is not a hook point; {hint}"


def _check_arguments(method: Any, point: str, name: str) -> None:
    arguments = POINTS[point]
    try:
        inspect.signature(method).bind(None, **dict.fromkeys(arguments))
    except TypeError:
        raise ConfigError(f"{name}.{point}: must take the arguments {', '.join(('runner', *arguments))}") from None


@HOOKS.register_module()
class WeightsSnapshot(Callback):
    """Save the deployed weights as safetensors at intervals; no file is removed.

    Args:
        every: epochs between files.
        folder: folder inside the output directory.
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
        """Save the weights after ``every`` epochs."""
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
    """Stop training as Ctrl-C does when a file appears in the output directory.

    Args:
        name: name of the file, which is then removed.
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
        """Stop if the file exists."""
        path = runner.work_dir / self.name
        if path.exists():
            path.unlink(missing_ok=True)  # another process may have seen it too
            runner.stop(f"{path} appeared")
