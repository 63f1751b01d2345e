"""Evaluation during training, and the checkpoints of a run: packed, kept, resumed from."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim import Optimizer

from tldet import checkpoint, integrity
from tldet.engine.precision import USER_SPECIFIED, Precision, as_written, choose
from tldet.engine.regularization import Ema
from tldet.engine.state import TrainSettings, TrainState, capture_rng, restore_rng
from tldet.errors import ConfigError, TrainingError
from tldet.models.normalizers import RunningNormalizers
from tldet.system.output import make_folder

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

log = logging.getLogger(__name__)
# Config keys that decide the value of the best metric.
COMPARED = (("data", "val"), ("evaluation", "type"), ("training", "best_metric"))
_STARTED = frozenset({"weights_source", "classes_from"})  # of a checkpoint's meta: what is known of the run's start
_MALFORMED = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)  # contents of a checkpoint
Evaluate = Callable[[nn.Module], Mapping[str, float]]
_NOTHING = -1.0  # COCO's value of a metric without ground truth


class CheckpointManager:
    """The checkpoint files of a run's folder: ``step_00000123.pt``, the last few of them, and ``best.pt``.

    Args:
        folder: the run's folder.
        keep: how many of the last ones stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self.best_path = folder / "best.pt"

    def step_path(self, step: int) -> Path:
        """The file of the checkpoint after ``step`` steps."""
        return checkpoint.step_path(self.folder, step)

    def last(self) -> Path | None:
        """The file of the highest step, readable or not."""
        return next(iter(checkpoint.steps_in(self.folder)), None)

    def prepare(self) -> None:
        """Make the folder.

        Raises:
            OutputError: it cannot be created.
            TrainingError: it contains the checkpoints of another run.
        """
        make_folder(self.folder)
        old = self.last() or (self.best_path if self.best_path.exists() else None)
        if old:
            raise TrainingError(f"{self.folder} holds an earlier run ({old.name}): resume it, or choose another folder")

    def newest(self) -> tuple[Path, dict[str, Any]]:
        """The newest readable checkpoint.

        Raises:
            TrainingError: there is none.
        """
        found = checkpoint.newest_readable(self.folder) if self.folder.is_dir() else None
        if found is None:
            raise TrainingError(f"nothing to resume: {self.folder} holds no readable checkpoint (step_*.pt)")
        return found

    def way_back(self, step: int, error: Exception) -> str:
        """What to tell a person whose run an error ended after ``step`` steps."""
        last = self.last()
        kept = f"the last checkpoint, {last}, is kept" if last else "there was no checkpoint yet"
        return (
            f"step {step + 1}: {error}; the weights were not touched, {kept}; "
            "lower optimizer.lr, lengthen schedule.warmup_steps or set training.clip_norm"
        )

    def way_on(self, step: int, save: Callable[[Path], None], todo: str = "mend the data") -> str:
        """Save the steps taken before one that cannot be taken; return how to resume after ``todo``."""
        if not step:
            return "no step was taken yet"
        path = self.step_path(step)
        if not path.exists():
            save(path)
        return f"the run is saved after step {step}: {todo}, then --resume goes on"

    def save(self, path: Path, contents: dict[str, Any]) -> None:
        """Write one file whole or not at all, then drop the oldest ones above ``keep``."""
        checkpoint.save(path, contents)
        if path != self.best_path:
            checkpoint.prune(self.folder, self.keep)


def pack(run: Trainer, *, whole: bool) -> dict[str, Any]:
    """What a checkpoint holds of a run; without the state of training where ``whole`` is false."""
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
    metrics = run.state.metrics if run.state.measured == run.state.step else {}  # only if they belong to these weights
    trained = {"steps": run.state.step, "metrics": metrics, "precision": run.precision.name}
    return {
        "config": run.config,
        "meta": {**run.meta, "trained": trained},
        "model": run.model.state_dict(),
        "ema": run.ema.state_dict() if run.ema else None,
        "training": training if whole else None,
    }


def _load_optimizer(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Load the optimizer's state but keep this run's options: the saved ones are those of the config at that time."""
    options = [
        {"initial_lr": group["lr"], **{key: value for key, value in group.items() if key not in ("params", "lr")}}
        for group in optimizer.param_groups
    ]
    optimizer.load_state_dict(saved)
    for group, own in zip(optimizer.param_groups, options, strict=True):
        group.update(own)


def _load_normalizers(normalizers: RunningNormalizers, training: Mapping[str, Any], path: Path) -> None:
    """Load the running means of the losses, which checkpoints of older versions do not have."""
    if "normalizers" in training:
        normalizers.load_state_dict(training["normalizers"])
    elif normalizers.parts:
        log.warning(
            "%s was written before losses were divided by running means: they start anew, so losses before and after "
            "this step differ in scale",
            path,
        )


def _misfit(training: Mapping[str, Any]) -> str:
    """Describe a training state that does not fit, with advice."""
    if not isinstance(training, Mapping) or "normalizers" in training:
        return "is of another model or optimizer, use its own config"
    return (
        "was written by an older version and its training state does not fit; start a new run from its weights "
        "(--init-from with another folder)"
    )


def _compare_anew(run: Trainer, before: Mapping[str, Any]) -> None:
    """Reset the best value if the resumed run validates on other data or with another metric."""
    changed = [
        f"{section}.{key}"
        for section, key in COMPARED
        if (before.get(section) or {}).get(key) != (run.config.get(section) or {}).get(key)
    ]
    if changed and run.state.best is not None:
        log.info("%s changed: earlier validations no longer count for best.pt and patience", ", ".join(changed))
        run.state.best = run.state.best_step = run.state.reference = None
        run.state.stale = 0


def unpack(run: Trainer, saved: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Put a run into the state of a checkpoint; returns the states of the random generators.

    Raises:
        TrainingError: the checkpoint is of another model or optimizer, or holds weights only.
    """
    training = saved.get("training")
    if training is None:
        raise TrainingError(f"{path} holds weights only, no state of training; start from it with --init-from")
    try:
        _load(run, saved, training, path)
        rng: dict[str, Any] = training["rng"]
        restore_rng(rng)  # again before the first step; here it would report malformed states
    except _MALFORMED as error:
        why = " ".join(str(error).split())[:300]
        raise TrainingError(f"{path} {_misfit(training)}: {why or type(error).__name__}") from None
    return rng


def _load(run: Trainer, saved: Mapping[str, Any], training: Mapping[str, Any], path: Path) -> None:
    if problem := integrity.problem_of(run.model.state_dict(), saved["model"], values=False):
        raise ValueError(f"tensor {problem}")
    run.model.load_state_dict(saved["model"])
    _load_optimizer(run.optimizer, training["optimizer"])
    _load_normalizers(run.stepper.normalizers, training, path)
    if run.ema:
        run.ema.load_state_dict(saved["ema"] or saved["model"])
    total, run.state = run.state.total, TrainState.from_dict(training)
    _compare_anew(run, saved["config"])
    for key in _STARTED.intersection(saved["meta"]):
        run.meta[key] = saved["meta"][key]  # a resumed run started where its first part did
    if run.schedule.minutes is None:
        run.state.total = total  # a run may be made longer; a budget's number stays as it was fixed
    _set_precision(run, training, path)


def _set_precision(run: Trainer, training: Mapping[str, Any], path: Path) -> None:
    """Continue in the precision of the checkpoint, if this device has it and the user did not choose another one."""
    name, rewrites, device = training["precision"], training.get("rewrites", {}), training["device"]
    chosen = run.precision.reason == USER_SPECIFIED and run.precision.name != name
    if device == run.device.type and not chosen and _has_precision(run, name):
        if (name, rewrites) != (run.precision.name, run.precision.rewrites):
            kept = Precision(name, device, reason="as in the checkpoint", rewrites=rewrites)
            run.set_precision(kept)
    else:
        text = "%s was trained in %s on %s; the run continues in %s, so its weights differ from an uninterrupted run's"
        log.warning(text, path, name, device, run.precision.describe())
    if run.stepper.scaler.is_enabled() and training.get("scaler"):  # empty unless the checkpoint is of an fp16 run
        run.stepper.scaler.load_state_dict(training["scaler"])


def _has_precision(run: Trainer, name: str) -> bool:
    try:
        choose(run.model, run.device, name)
    except ConfigError:
        return False
    return True


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
    return None if metrics[name] == _NOTHING else metrics[name]
