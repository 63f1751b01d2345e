"""The training loop, plain enough to read aloud.

A step is a pure function of the state before it and of its number: images come from ``batches`` by number, random
numbers are seeded from (seed, step), the learning rate is computed from the step. After a step come, in this order,
the log, validation and the checkpoint, so what the log holds up to a checkpoint's step was written before it.
Together this makes a resumed run bit-identical to one left alone (CPU, same number of threads).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from tldet.engine.checkpointing import CheckpointManager, Evaluate, best_of, measure, pack, unpack
from tldet.engine.distributed import World
from tldet.engine.logging import LOG_NAME, JsonLog, LogWriter
from tldet.engine.precision import Precision
from tldet.engine.progress import Reporter
from tldet.engine.regularization import Ema
from tldet.engine.schedule import Budget, ScheduleSettings, Stopwatch, factor, falls_due, rates, set_rates
from tldet.engine.state import TrainResult, TrainSettings, TrainState, deterministic, mix_seed, restore_rng, seed_all
from tldet.engine.step import Feed, NotFiniteError, StepMemory, Stepper, StepResult
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.system.out_of_memory import OutOfMemoryError
from tldet.system.signals import Interrupts, Stopped

log = logging.getLogger(__name__)

INTERRUPTED = "interrupted"


class Trainer:
    """Trains anything that gives a dict of losses; knows nothing of boxes.

    Args:
        model: on its device; while training ``model(batch)`` gives a dict of scalar losses, which are summed.
        optimizer: its learning rates are the ones that the schedule's factor multiplies.
        batches: ``batches(n)`` yields this process's micro-batches without end from its number ``n``. A micro-batch
            has ``image_ids``, ``to(device)`` and takes a ``seed``.
        evaluate: gives metrics (larger is better, among them the best metric) and validation losses
            (``val_loss...``) of a model in eval mode; None never validates.
        schedule: length and learning rate.
        settings: everything else.
        work_dir: where checkpoints and ``log.jsonl`` go.
        steps_per_epoch: optimizer steps an epoch; a fraction where accumulation does not divide it.
        batch_size: images in a micro-batch, for images/s.
        world: the processes that train together; the main one measures and writes.
        precision: what :func:`tldet.engine.precision.choose` chose; fp32 when None.
        reporter: shows progress; nothing when None.
        config: the resolved config, kept in checkpoints.
        meta: class names, category ids and the like, kept in checkpoints.
        hooks: callbacks, in the order they are called in (see :mod:`tldet.engine.callbacks`).
        clock: seconds, for the budget of minutes.
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
        self.checkpoints = CheckpointManager(self.work_dir, settings.keep)
        lines = JsonLog(self.work_dir / LOG_NAME, quiet=not self.world.main)
        self.log_writer = LogWriter(lines, self.reporter, steps_per_epoch)
        self.stepper = Stepper(self.model, optimizer, self.precision, settings.clip_norm, self.world)
        if settings.on_oom == "reduce" and self.world.size > 1:
            raise ConfigError("training.on_oom='reduce': works with one process; lower data.loader.batch_size instead")
        self.memory = StepMemory(self.model, optimizer, settings.on_oom == "reduce")
        self.stopwatch = Stopwatch(clock)
        self.iter = 0  # as in mmengine: steps finished before the one whose callbacks run
        self.logger = log  # for callbacks
        self._stop_reason: str | None = None
        self._agreed = False
        self._saved = time.monotonic()

    def run(self, *, resume: bool = False) -> TrainResult:
        """Train to the end of the schedule.

        Args:
            resume: go on from the newest readable checkpoint in the run's folder.

        Raises:
            TrainingError: a loss is not finite; there is nothing to resume, or something that would be overwritten.
            CheckpointError: a checkpoint cannot be written; earlier ones are whole.
            DataError: an image cannot be read; the steps before it are saved.
            KeyboardInterrupt: after Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP, once the finished steps are saved, also if
                the signal came after the last step; the message says how to continue.
        """
        rng: Mapping[str, Any] | None = None
        self._call("before_run")
        if resume:
            rng = self._resume()
        else:
            self._begin()
        with deterministic(self.device), Interrupts(self._on_interrupt) as interrupts:
            stream = self.batches(self.state.step * self.settings.accumulate)
            try:
                reason = self._loop(self._started(stream, rng), interrupts)
            except NotFiniteError as error:
                raise TrainingError(self.checkpoints.way_back(self.state.step, error)) from None
            finally:
                self.reporter.close()
                getattr(stream, "close", lambda: None)()
        self._call("after_train")
        self._call("after_run")
        if reason == INTERRUPTED:
            self.world.first(lambda: None)  # a process that ended before the last file is written has torchrun stop all
            raise KeyboardInterrupt(f"stopped after step {self.state.step}, saved in {self.work_dir}; --resume goes on")
        if self.world.any(interrupts.requested)[0]:  # after the last step: what follows the training is not done
            raise KeyboardInterrupt(f"training is complete and saved in {self.work_dir}; --resume shows its results")
        return TrainResult.of(self.state, reason, self.checkpoints.last(), self.checkpoints.best_path)

    def _begin(self) -> None:
        """Make the run's folder ready for a new run."""
        if self.world.main:
            self.checkpoints.prepare()
        self.log_writer.log.cut(0, unmeasured=True)
        self.state.unmeasured = self.state.total == 0  # then the start is all there is to measure and to save

    def _resume(self) -> dict[str, Any]:
        """Take the newest readable checkpoint's state; returns its random generators' states."""
        path, saved = self.checkpoints.newest()
        rng = unpack(self, saved, path)
        self.iter = self.state.step
        self._call("after_load_checkpoint", checkpoint=saved)
        self.stopwatch.seconds = self.state.seconds
        self.log_writer.log.cut(self.state.step, unmeasured=self.state.unmeasured)
        log.info("resuming from %s after step %d", path, self.state.step)
        if self._ended() == "finished" and not self.state.unmeasured:
            log.info("all steps are taken, nothing is left to do; schedule.steps=N (or epochs=N) makes the run longer")
        return rng

    def _started(self, stream: Iterator[Any], rng: Mapping[str, Any] | None) -> Feed:
        """Load the data of the first step: starting workers is not training time."""
        self.reporter.start(self.state.step, self.state.total)
        self.model.train()
        self._call("before_train")
        feed = Feed(stream, self.settings.accumulate, self.settings.seed, self.world)
        if self._ended() is None:
            feed.load(self.state.step)
        if rng is not None:
            restore_rng(rng)
        return feed

    def set_precision(self, precision: Precision) -> None:
        """Compute in ``precision`` from now on."""
        self.precision = precision
        precision.prepare(self.model)
        self.stepper = Stepper(self.model, self.optimizer, precision, self.settings.clip_norm, self.world)

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return int(self.iter / self.steps_per_epoch)

    @property
    def max_epochs(self) -> int | None:
        """Number of epochs of the run, the last of which may be a fraction; None while a budget is measured."""
        return None if self.state.total is None else math.ceil(self.state.total / self.steps_per_epoch)

    @property
    def max_iters(self) -> int | None:
        """Number of steps of the run; None while a budget of minutes is measured."""
        return self.state.total

    def stop(self, reason: str) -> None:
        """End after the current step (the next one if there are several processes), with a checkpoint; for hooks."""
        self._stop_reason = reason

    def deployed_weights(self) -> dict[str, Tensor]:
        """The state of the model people will use: the average where there is one."""
        return self.ema.state_dict() if self.ema else self.model.state_dict()

    def _loop(self, feed: Feed, interrupts: Interrupts) -> str:
        """Take steps until there is a reason not to; returns the reason."""
        budget = Budget.of(self.schedule, self.state)
        interrupted, begun, self._saved = False, self.state.step, time.monotonic()
        if self.state.unmeasured:
            interrupted = not self._validate(interrupts)
            self._save(self.checkpoints.step_path(self.state.step))
        reason = INTERRUPTED if interrupted else self._ended()
        while reason is None:
            interrupted = self._step(feed, budget, interrupts)
            if self._log_due():
                self.log_writer.window(self.state)
            if self._due(self.settings.validate_every) and not self._validate(interrupts, interrupted):
                interrupted = True
            reason = INTERRUPTED if interrupted else self._ended()
            if reason or self._checkpoint_due():
                self._save(self.checkpoints.step_path(self.state.step))
        if reason != INTERRUPTED:
            self._keep_last(begun)
        return reason

    def _keep_last(self, begun: int) -> None:
        """Save the last weights as ``best.pt`` if no validation gave a value to choose by."""
        path = self.checkpoints.best_path
        if self.evaluate is not None and self.state.best is None and (self.state.step > begun or not path.exists()):
            self._save(path, whole=False)

    def _step(self, feed: Feed, budget: Budget | None, interrupts: Interrupts) -> bool:
        """Take one optimizer step and record it; return True if a signal asks some process to stop."""
        state, before = self.state, self.stopwatch.seconds
        with self.stopwatch.running():
            expected = None
            if budget and state.total is None:
                expected = self.world.first(partial(budget.expected, state.step, state.seconds))
            now = factor(self.schedule, state.step, state.total, self.steps_per_epoch, expected)
            lr = set_rates(self.optimizer, now)
            try:
                batches, images = feed.take(state.step)
            except DataError as error:
                raise self._unreadable(error) from None
            if state.step == 0 or falls_due(state.step, 1.0, self.steps_per_epoch):
                self._call("before_train_epoch")
            self._call("before_train_iter", batch_idx=state.step, data_batch=batches)
            result = self._take(batches, images, partial(self._look_ahead, feed, interrupts))
            state.step += 1
            if self.ema:
                self.ema.update(state.step)
        state.seconds = self.stopwatch.seconds
        if budget and state.total is None:
            state.total = self.world.first(partial(budget.fix, state.step, state.seconds))
        self.log_writer.step(state, result, lr, self.images_per_step, state.seconds - before)
        loss = torch.tensor(result.loss, dtype=torch.float64)  # a tensor, as hooks of mmengine expect
        outputs = {"loss": loss, "losses": result.parts, "grad_norm": result.norm, "lr": rates(self.optimizer)}
        self._call("after_train_iter", batch_idx=state.step - 1, data_batch=batches, outputs=outputs)
        if self._due(1.0):
            self._call("after_train_epoch")
        self.iter = state.step
        *totals, stopped, interrupted = result.notes
        feed.agree(totals)
        self._agreed = stopped > 0
        return interrupted > 0 or (self.world.size == 1 and interrupts.requested)

    def _look_ahead(self, feed: Feed, interrupts: Interrupts) -> list[int]:
        """Load the next step's data; return what all processes must know before they take it."""
        flags = [int(self._stop_reason is not None), int(interrupts.requested)]
        following = self.state.step + 1
        if not any(flags) and (self.state.total is None or following < self.state.total):
            feed.load(following)
        return [*feed.counts(), *flags]

    def _take(self, batches: list[Any], images: int, notes: Callable[[], list[int]]) -> StepResult:
        """Take a step on the micro-batches, divided further once memory has run out.

        Raises:
            TrainingError: they do not fit into memory; the steps before are saved.
        """
        rank = [self.world.rank] if self.world.rank else []

        def step(parts: list[Any]) -> StepResult:
            seed_all(mix_seed(self.settings.seed, self.state.step, *rank))  # dropout must not depend on data loading
            return self.stepper(parts, images, notes)

        try:
            result, self.state.split = self.memory(step, batches, self.state.split)
        except OutOfMemoryError as error:
            number = self.state.step + 1
            saved = "the step is not saved"
            if not self.world.main:  # does not save, and the main process may be waiting for this one
                saved = f"in process {self.world.rank}: --resume goes on from the last checkpoint"
            elif error.whole:
                saved = self.checkpoints.way_on(self.state.step, self._save, "do that")
            raise TrainingError(f"step {number}: {error}; {saved}") from None
        return result

    def _unreadable(self, error: Exception) -> DataError:
        """The error about an image with the way on, once the steps before it are saved."""
        return DataError(f"{error}; {self.checkpoints.way_on(self.state.step, self._save)}")

    def _validate(self, interrupts: Interrupts, interrupted: bool = False) -> bool:
        """Evaluate the deployed weights; keep them if they are the best so far.

        Returns:
            False if a signal came before or meanwhile: the resumed run evaluates them.
        """
        if self.evaluate is None:
            return True
        start = time.perf_counter()
        self.state.unmeasured = True
        if interrupted:
            return False
        self._call("before_val")
        self._call("before_val_epoch")
        try:
            call = partial(measure, self.model, interrupts.ending(self.evaluate), self.ema, self.precision)
            self.state.metrics = self.world.first(call)
        except Stopped:
            return False
        except DataError as error:
            raise self._unreadable(error) from None
        except OutOfMemoryError as error:
            raise TrainingError(f"{error}; {self.checkpoints.way_on(self.state.step, self._save, 'do that')}") from None
        self.state.unmeasured, self.state.measured = False, self.state.step
        is_best = self.state.take_in(best_of(self.state.metrics, self.settings), self.settings.min_gain)
        self.log_writer.validation(self.state, time.perf_counter() - start)
        if is_best:
            self._save(self.checkpoints.best_path, whole=False)
        self._call("after_val_epoch", metrics=self.state.metrics)
        self._call("after_val")
        return True

    def _save(self, path: Path, *, whole: bool = True) -> None:
        """Write a checkpoint in the main process: the whole state, or what it takes to use the weights."""
        if not self.world.main:
            return
        if whole:
            self._saved = time.monotonic()
        self.log_writer.log.sync()
        contents = pack(self, whole=whole)
        self._call("before_save_checkpoint", checkpoint=contents)
        self.checkpoints.save(path, contents)

    def _ended(self) -> str | None:
        """Why there is no further step to take, or None."""
        if self.state.total is not None and self.state.step >= self.state.total:
            return "finished"
        if self.settings.patience is not None and self.state.stale >= self.settings.patience:
            return "no gain"
        if self.world.size == 1:
            return self._stop_reason
        return (self._stop_reason or "stopped by another process") if self._agreed else None

    def _due(self, every: float | None) -> bool:
        """Whether the step just taken passed a multiple of ``every`` epochs or was the last."""
        return self.state.step == self.state.total or falls_due(self.state.step, every, self.steps_per_epoch)

    def _checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint; only the main process, which writes it, needs to know."""
        minutes = self.settings.checkpoint_minutes
        old = minutes is not None and time.monotonic() - self._saved >= 60 * minutes
        return old or self._due(self.settings.checkpoint_every)

    def _log_due(self) -> bool:
        return self.state.step == self.state.total or self.state.step % self.settings.log_every == 0

    def _on_interrupt(self) -> None:
        self.reporter.say("saving and stopping; press Ctrl-C again to stop at once")

    def _call(self, name: str, **details: Any) -> None:
        for hook in self.hooks:
            if (method := getattr(hook, name, None)) is not None:
                method(self, **details)
