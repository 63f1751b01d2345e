"""The trainer of detectors and classifiers: the parts of a run, its start and end, and the interface for hooks."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tldet.engine.checkpointing import CheckpointManager, restore_run
from tldet.engine.distributed import World
from tldet.engine.logging import LOG_NAME, JsonLog, LogWriter
from tldet.engine.loop import INTERRUPTED, Evaluate, train_loop
from tldet.engine.precision import Precision
from tldet.engine.progress import Reporter
from tldet.engine.schedule import ScheduleSettings, Stopwatch, falls_due
from tldet.engine.state import TrainResult, TrainSettings, TrainState
from tldet.engine.step import Feed, NotFiniteError, Stepper
from tldet.errors import ConfigError, TrainingError
from tldet.models.ema import Ema
from tldet.system.determinism import deterministic, restore_rng
from tldet.system.out_of_memory import StepRetry
from tldet.system.signals import Interrupts

log = logging.getLogger(__name__)


class Trainer:
    """Trainer of any model that returns a dict of losses.

    Args:
        model: on its device; in training mode ``model(batch)`` returns a dict of scalar losses, which are summed.
        optimizer: the schedule scales its learning rates.
        batches: ``batches(n)`` returns an endless iterator over the micro-batches of this process, from number ``n``
            on. A micro-batch has ``image_ids``, ``to(device)`` and a settable ``seed``.
        evaluate: returns metrics (larger is better, including the best metric) and validation losses (``val_loss...``)
            of a model in eval mode; None for no validation.
        schedule: length of training and learning rate.
        settings: the ``training`` section of the config.
        work_dir: directory of checkpoints and ``log.jsonl``.
        steps_per_epoch: optimizer steps per epoch; a fraction if accumulation does not divide the epoch.
        batch_size: images per micro-batch, for images/s.
        world: processes of the run; the main process evaluates and writes.
        precision: result of :func:`tldet.engine.precision.choose`; None for fp32.
        reporter: shows progress; None for none.
        config: resolved config, saved in checkpoints.
        meta: class names, category ids and so on, saved in checkpoints.
        hooks: callbacks in the order in which they are called (see :mod:`tldet.engine.callbacks`).
        clock: returns seconds, for a budget of minutes.

    Raises:
        ConfigError: ``training.on_oom`` is "reduce" and there are several processes.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        batches: Callable[[int], Iterator[Any]],
        evaluate: Evaluate | None,
        schedule: ScheduleSettings,
        settings: TrainSettings,
        work_dir: str | Path,
        *,
        steps_per_epoch: float,
        batch_size: int,
        world: World | None = None,
        precision: Precision | None = None,
        reporter: Reporter | None = None,
        config: Mapping[str, Any] | None = None,
        meta: Mapping[str, Any] | None = None,
        hooks: Sequence[Any] = (),
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.device = next(model.parameters()).device
        self.precision = precision or Precision(device_type=self.device.type)
        self.model = self.precision.prepare(model)
        self.optimizer = optimizer
        self.batches = batches
        self.evaluate = evaluate
        self.schedule = schedule
        self.settings = settings
        self.work_dir = Path(work_dir)
        self.steps_per_epoch = steps_per_epoch
        self.world = world or World()
        self.images_per_step = batch_size * settings.accumulate * self.world.size
        self.reporter = reporter or Reporter()
        self.hooks = list(hooks)
        self.ema = None if settings.ema is None else Ema(self.model, settings.ema)
        self.state = TrainState(total=schedule.total_steps(steps_per_epoch))
        self.config, self.meta = dict(config or {}), dict(meta or {})
        self.checkpoints = CheckpointManager(self.work_dir, settings.max_keep_ckpts)
        lines = JsonLog(self.work_dir / LOG_NAME, quiet=not self.world.main)
        self.log_writer = LogWriter(lines, self.reporter, steps_per_epoch)
        self.stepper = Stepper(self.model, optimizer, self.precision, settings.clip_norm, self.world)
        if settings.on_oom == "reduce" and self.world.size > 1:
            raise ConfigError("training.on_oom='reduce': works with one process; lower data.loader.batch_size instead")
        self.retry = StepRetry(self.model, optimizer, settings.on_oom == "reduce")
        self.stopwatch = Stopwatch(clock)
        self.iter = 0  # as in mmengine: steps finished before the one whose callbacks run
        self.logger = log  # for callbacks
        self.stop_reason: str | None = None
        self.all_stop = False  # a process has called stop()

    def __repr__(self) -> str:
        name = type(self.model).__name__
        return f"Trainer({name}, step {self.state.step}, device {self.device}, folder {str(self.work_dir)!r})"

    def run(self, *, resume: bool = False) -> TrainResult:
        """Train to the end of the schedule.

        Args:
            resume: resume from the newest readable checkpoint in ``work_dir``.

        Raises:
            TrainingError: a loss is not finite, there is nothing to resume, or ``work_dir`` holds an earlier run.
            CheckpointError: a checkpoint cannot be written; earlier ones are intact.
            DataError: an image cannot be read; the steps before it are saved.
            KeyboardInterrupt: after Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP, once the finished steps are saved, also if
                the signal came after the last step; the message states how to resume.
        """
        self.call_hooks("before_run")
        rng: Mapping[str, Any] | None = None
        if resume:
            rng = self._resume()
        else:
            self._begin()
        with deterministic(self.device), Interrupts(self._on_interrupt) as interrupts:
            stream = self.batches(self.state.step * self.settings.accumulate)
            try:
                reason = train_loop(self, self._start(stream, rng), interrupts)
            except NotFiniteError as error:
                raise TrainingError(self.checkpoints.explain_not_finite(self.state.step, error)) from None
            finally:
                self.reporter.close()
                getattr(stream, "close", lambda: None)()
        self.call_hooks("after_train")
        self.call_hooks("after_run")
        if reason == INTERRUPTED:
            self.world.first(lambda: None)  # torchrun stops all processes as soon as one ends: wait for the last file
            raise KeyboardInterrupt(
                f"stopped after step {self.state.step}, saved in {self.work_dir}; --resume continues the run"
            )
        if self.world.any(interrupts.requested)[0]:
            raise KeyboardInterrupt(f"training is complete and saved in {self.work_dir}; --resume shows the results")
        return TrainResult.of(self.state, reason, self.checkpoints.last(), self.checkpoints.best_path)

    def _begin(self) -> None:
        """Prepare ``work_dir`` for a new run."""
        if self.world.main:
            self.checkpoints.prepare()
        self.log_writer.log.cut(0, validation_pending=True)
        self.state.validation_pending = self.state.total == 0  # evaluate and save the initial weights

    def _resume(self) -> dict[str, Any]:
        """Restore the newest readable checkpoint; return the states of its random generators."""
        path, saved = self.checkpoints.newest()
        rng = restore_run(self, saved, path)
        self.iter = self.state.step
        self.call_hooks("after_load_checkpoint", checkpoint=saved)
        self.stopwatch.seconds = self.state.seconds
        self.log_writer.log.cut(self.state.step, validation_pending=self.state.validation_pending)
        log.info("resuming from %s after step %d", path, self.state.step)
        if self.end() == "finished" and not self.state.validation_pending:
            log.info("training is complete; increase schedule.steps (or epochs) to train longer")
        return rng

    def _start(self, stream: Iterator[Any], rng: Mapping[str, Any] | None) -> Feed:
        """Load the data of the first step: the start of loader processes is not training time."""
        self.reporter.start(self.state.step, self.state.total)
        self.model.train()
        self.call_hooks("before_train")
        feed = Feed(stream, self.settings.accumulate, self.settings.seed, self.world)
        if self.end() is None:
            feed.load(self.state.step)
        if rng is not None:
            restore_rng(rng)
        return feed

    def end(self) -> str | None:
        """Return the reason why the run ends here; None if there are further steps."""
        if self.state.total is not None and self.state.step >= self.state.total:
            return "finished"
        if self.settings.patience is not None and self.state.stale >= self.settings.patience:
            return "no gain"
        if self.world.size == 1:
            return self.stop_reason
        return (self.stop_reason or "stopped by another process") if self.all_stop else None

    def is_due(self, every: float | None) -> bool:
        """Return True if the last step passed a multiple of ``every`` epochs or was the last of the run."""
        return self.state.step == self.state.total or falls_due(self.state.step, every, self.steps_per_epoch)

    def _on_interrupt(self) -> None:
        self.reporter.show("saving and stopping; press Ctrl-C again to stop at once")

    def call_hooks(self, point: str, **details: Any) -> None:
        """Call a hook point of all callbacks that have it."""
        for hook in self.hooks:
            if (method := getattr(hook, point, None)) is not None:
                method(self, **details)

    def stop(self, reason: str) -> None:
        """Stop after the current step (with several processes, after the next one), with a checkpoint; for hooks."""
        self.stop_reason = reason

    def set_precision(self, precision: Precision) -> None:
        """Change the precision of the following steps."""
        self.precision = precision
        precision.prepare(self.model)
        self.stepper = Stepper(self.model, self.optimizer, precision, self.settings.clip_norm, self.world)

    def deployed_weights(self) -> dict[str, Tensor]:
        """Return the weights for use after training: the moving average if there is one."""
        return self.ema.state_dict() if self.ema else self.model.state_dict()

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return int(self.iter / self.steps_per_epoch)

    @property
    def max_epochs(self) -> int | None:
        """Number of epochs of the run, rounded up; None while a budget of minutes is measured."""
        return None if self.state.total is None else math.ceil(self.state.total / self.steps_per_epoch)

    @property
    def max_iters(self) -> int | None:
        """Number of steps of the run; None while a budget of minutes is measured."""
        return self.state.total
