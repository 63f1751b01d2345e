"""Checkpoints of a run: files, contents, and resuming."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer

from tldet import checkpoint, integrity
from tldet.engine.precision import USER_SPECIFIED, Precision, choose
from tldet.engine.state import TrainState
from tldet.errors import ConfigError, TrainingError
from tldet.system.determinism import capture_rng, restore_rng
from tldet.system.output import make_folder

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

log = logging.getLogger(__name__)
# Config keys that determine the value of the best metric.
_COMPARED = (("data", "val"), ("evaluation", "type"), ("training", "best_metric"))
_INITIAL = frozenset({"weights_source", "weights_license", "classes_from"})  # keys of ``meta`` on the initial weights
_MALFORMED = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)  # contents of a checkpoint


class CheckpointManager:
    """Checkpoint files of a run: the last few ``step_00000123.pt``, and ``best.pt``.

    Args:
        folder: output directory of the run.
        keep: number of checkpoints to keep besides ``best.pt``.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self.best_path = folder / "best.pt"
        self._saved = time.monotonic()

    def last(self) -> Path | None:
        """Return the checkpoint of the highest step, readable or not."""
        return next(iter(checkpoint.steps_in(self.folder)), None)

    def prepare(self) -> None:
        """Create the folder.

        Raises:
            OutputError: it cannot be created.
            TrainingError: it contains the checkpoints of another run.
        """
        make_folder(self.folder)
        old = self.last() or (self.best_path if self.best_path.exists() else None)
        if old:
            raise TrainingError(
                f"{self.folder} contains an earlier run ({old.name}): resume it with --resume, or choose another folder"
            )

    def newest(self) -> tuple[Path, dict[str, Any]]:
        """Return the newest readable checkpoint and its path.

        Raises:
            TrainingError: there is none.
        """
        found = checkpoint.newest_readable(self.folder) if self.folder.is_dir() else None
        if found is None:
            raise TrainingError(f"nothing to resume: {self.folder} contains no readable checkpoint (step_*.pt)")
        return found

    def save_step(self, run: Trainer) -> None:
        """Save the complete state of a run, in the main process, and remove the oldest checkpoints above ``keep``."""
        if run.world.main:
            self._saved = time.monotonic()
            self._write(checkpoint.step_path(self.folder, run.state.step), run, complete=True)
            checkpoint.prune(self.folder, self.keep)

    def save_best(self, run: Trainer) -> None:
        """Save the weights of a run as ``best.pt``, in the main process, without the training state."""
        if run.world.main:
            self._write(self.best_path, run, complete=False)

    def _write(self, path: Path, run: Trainer, *, complete: bool) -> None:
        run.log_writer.log.sync()
        contents = checkpoint_contents(run, complete=complete)
        run.call_hooks("before_save_checkpoint", checkpoint=contents)
        checkpoint.save(path, contents)

    def is_old(self, minutes: float | None) -> bool:
        """Return True if the last checkpoint is older than ``minutes``; None never is."""
        return minutes is not None and time.monotonic() - self._saved >= 60 * minutes

    def save_before_error(self, run: Trainer, todo: str) -> str:
        """Save the finished steps before an error ends the run; return a message that advises ``todo`` and --resume."""
        if not run.state.step:
            return "no step was taken yet"
        if not checkpoint.step_path(self.folder, run.state.step).exists():
            self.save_step(run)
        return f"the run is saved after step {run.state.step}; {todo} and resume with --resume"

    def explain_not_finite(self, step: int, error: Exception) -> str:
        """Return the message for a loss or gradient that is not finite in the step after ``step``."""
        last = self.last()
        saved = f"the last checkpoint is {last}" if last else "there is no checkpoint yet"
        return (
            f"step {step + 1}: {error}; the weights are unchanged and {saved}; "
            "lower optimizer.lr, increase schedule.warmup_steps or set training.clip_norm"
        )


def checkpoint_contents(run: Trainer, *, complete: bool) -> dict[str, Any]:
    """Return the contents of a checkpoint; the training state is None unless ``complete``."""
    training = {
        **run.state.to_dict(),
        "optimizer": run.optimizer.state_dict(),
        "scaler": run.stepper.scaler.state_dict(),
        "normalizers": run.stepper.normalizers.state_dict(),
        "precision": run.precision.name,
        "rewrites": {name: list(parts) for name, parts in run.precision.rewrites.items()},
        "device": run.device.type,
        "rng": capture_rng(),
    }
    metrics = run.state.metrics if run.state.validated_step == run.state.step else {}  # only those of these weights
    trained = {"steps": run.state.step, "metrics": metrics, "precision": run.precision.name}
    return {
        "config": run.config,
        "meta": {**run.meta, "trained": trained},
        "model": run.model.state_dict(),
        "ema": run.ema.state_dict() if run.ema else None,
        "training": training if complete else None,
    }


def restore_run(run: Trainer, saved: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Restore a run from a checkpoint.

    Returns:
        States of the random generators, see :func:`~tldet.system.determinism.restore_rng`.

    Raises:
        TrainingError: the checkpoint belongs to another model or optimizer, or has no training state.
    """
    training = saved.get("training")
    if training is None:
        raise TrainingError(f"{path} contains weights but no training state; start a new run from it with --init-from")
    try:
        _load(run, saved, training)
        _set_precision(run, training, path)
        rng: dict[str, Any] = training["rng"]
        restore_rng(rng)  # again before the first step; here it reports malformed states
    except KeyError as error:
        raise TrainingError(
            f"{path}: its training state has no {error}: it was written by another version of tldet or optimizer; "
            "start a new run from its weights (--init-from with another folder)"
        ) from None
    except _MALFORMED as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise TrainingError(
            f"{path} belongs to another model or optimizer; use the config of its run ({reason})"
        ) from None
    return rng


def _load(run: Trainer, saved: Mapping[str, Any], training: Mapping[str, Any]) -> None:
    """Load weights, optimizer, running means and counters."""
    if problem := integrity.problem_of(run.model.state_dict(), saved["model"], values=False):
        raise ValueError(f"tensor {problem}")
    run.model.load_state_dict(saved["model"])
    _load_optimizer(run.optimizer, training["optimizer"])
    run.stepper.normalizers.load_state_dict(training["normalizers"])
    if run.ema:
        run.ema.load_state_dict(saved["ema"] or saved["model"])
    total, run.state = run.state.total, TrainState.from_dict(training)
    _compare_validations(run, saved["config"])
    for key in _INITIAL.intersection(saved["meta"]):
        run.meta[key] = saved["meta"][key]
    if run.schedule.minutes is None:
        run.state.total = total  # a run may be made longer; the number of steps of a time budget stays


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load the state of the optimizer, but keep the options of the current config."""
    options = [
        {"initial_lr": group["lr"], **{key: value for key, value in group.items() if key not in ("params", "lr")}}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)


def _compare_validations(run: Trainer, before: Mapping[str, Any]) -> None:
    """Reset the best value if the resumed run validates on other data or with another metric."""
    changed = [
        f"{section}.{key}"
        for section, key in _COMPARED
        if (before.get(section) or {}).get(key) != (run.config.get(section) or {}).get(key)
    ]
    if changed:
        log.info("%s changed: earlier validations no longer count for best.pt and patience", ", ".join(changed))
        run.state.forget_validations()


def _set_precision(run: Trainer, training: Mapping[str, Any], path: Path) -> None:
    """Resume in the precision of the checkpoint, if the device supports it and the user did not choose another."""
    name, rewrites, device = training["precision"], training["rewrites"], training["device"]
    other = run.precision.reason == USER_SPECIFIED and run.precision.name != name
    if device == run.device.type and not other and _supports(run, name):
        if (name, rewrites) != (run.precision.name, run.precision.rewrites):
            run.set_precision(Precision(name, device, reason="as in the checkpoint", rewrites=rewrites))
    else:
        text = "%s was trained on device %s in %s; the run resumes with %s, so its weights will differ slightly"
        log.warning(text, path, device, name, run.precision.describe())
    if run.stepper.scaler.is_enabled() and training["scaler"]:  # empty unless the checkpoint is of an fp16 run
        run.stepper.scaler.load_state_dict(training["scaler"])


def _supports(run: Trainer, name: str) -> bool:
    try:
        choose(run.model, run.device, name)
    except ConfigError:
        return False
    return True
