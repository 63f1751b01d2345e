"""The training loop, plain enough to read aloud.

A step is a pure function of the state before it and of its number: pictures come from ``batches`` by number, random
numbers are seeded from (seed, step), the learning rate is computed from the step. After a step come, in this order,
the log, validation and the checkpoint, so what the log holds up to a checkpoint's step was written before it.
Together this makes a resumed run bit-identical to one left alone (CPU, same number of threads).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from tldet.engine.budget import Budget, Stopwatch
from tldet.engine.distributed import World
from tldet.engine.ema import Ema
from tldet.engine.interrupt import Interrupts
from tldet.engine.keeper import Keeper, pack, unpack
from tldet.engine.log import LOG_NAME, JsonLog
from tldet.engine.precision import Precision
from tldet.engine.progress import Reporter
from tldet.engine.recorder import Recorder
from tldet.engine.schedule import ScheduleSettings, factor, falls_due, set_rates
from tldet.engine.settings import TrainSettings
from tldet.engine.state import TrainResult, TrainState, deterministic, mix, restore_rng, seed_all
from tldet.engine.step import NotFiniteError, Stepper, count_images
from tldet.engine.validation import Evaluate, best_of, measure
from tldet.errors import DataError, TrainingError

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
        batch_size: pictures in a micro-batch, for images/s.
        world: the processes that train together; the main one measures and writes.
        precision: what :func:`tldet.engine.precision.choose` chose; fp32 when None.
        reporter: shows progress; nothing when None.
        config: the resolved config, kept in checkpoints.
        meta: class names, category ids and the like, kept in checkpoints.
        hooks: objects with those methods of mmengine's ``Hook`` that they need, in the order they are called in.
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
        self.keeper = Keeper(self.work_dir, settings.keep)
        lines = JsonLog(self.work_dir / LOG_NAME, quiet=not self.world.main)
        self.recorder = Recorder(lines, self.reporter, steps_per_epoch)
        self.stepper = Stepper(self.model, optimizer, self.precision, settings.clip_norm, self.world)
        self.stopwatch = Stopwatch(clock)
        self._stop_reason: str | None = None

    def run(self, *, resume: bool = False) -> TrainResult:
        """Train to the end of the schedule.

        Args:
            resume: go on from the newest readable checkpoint in the run's folder.

        Raises:
            TrainingError: a loss is not finite; there is nothing to resume, or something that would be overwritten.
            CheckpointError: a checkpoint cannot be written; earlier ones are whole.
            DataError: a picture cannot be read; the steps before it are saved.
            KeyboardInterrupt: after Ctrl-C, when the step was finished and saved; the message says how to go on.
        """
        rng: Mapping[str, Any] | None = None
        if resume:
            rng = self._resume()
        else:
            self._begin()
        with deterministic(self.device), Interrupts(self._on_interrupt) as interrupts:
            stream = self.batches(self.state.step * self.settings.accumulate)
            try:
                reason = self._loop(self._started(stream, rng), interrupts)
            except NotFiniteError as error:
                raise TrainingError(self.keeper.way_back(self.state.step, error)) from None
            finally:
                self.reporter.close()
                getattr(stream, "close", lambda: None)()
        self._call("after_train")
        if reason == INTERRUPTED:
            raise KeyboardInterrupt(f"stopped after step {self.state.step}, saved in {self.work_dir}; --resume goes on")
        return TrainResult.of(self.state, reason, self.keeper.last(), self.keeper.best_path)

    def _begin(self) -> None:
        """Make the run's folder ready for a new run."""
        if self.world.main:
            self.keeper.prepare()
        self.recorder.log.cut(0, unmeasured=True)
        self.state.unmeasured = self.state.total == 0  # then the start is all there is to measure and to save

    def _resume(self) -> dict[str, Any]:
        """Take the newest readable checkpoint's state; returns its random generators' states."""
        path, saved = self.keeper.newest()
        rng = unpack(self, saved, path)
        self.stopwatch.seconds = self.state.seconds
        self.recorder.log.cut(self.state.step, unmeasured=self.state.unmeasured)
        log.info("resuming from %s after step %d", path, self.state.step)
        if self._ended() == "finished" and not self.state.unmeasured:
            log.info("all steps are taken, nothing is left to do; schedule.steps=N (or epochs=N) makes the run longer")
        return rng

    def _started(self, stream: Iterator[Any], rng: Mapping[str, Any] | None) -> Iterator[Any]:
        """The stream with its first micro-batch fetched: starting workers is not training time."""
        self.reporter.start(self.state.step, self.state.total)
        self.model.train()
        self._call("before_train")
        if self._ended() is None:
            stream = chain([next(stream)], stream)
        if rng is not None:
            restore_rng(rng)
        return stream

    def set_precision(self, precision: Precision) -> None:
        """Compute in ``precision`` from now on."""
        self.precision = precision
        precision.prepare(self.model)
        self.stepper = Stepper(self.model, self.optimizer, precision, self.settings.clip_norm, self.world)

    def stop(self, reason: str) -> None:
        """End after the step at hand, with a checkpoint (for hooks)."""
        self._stop_reason = reason

    def deployed_weights(self) -> dict[str, Tensor]:
        """The state of the model people will use: the average where there is one."""
        return self.ema.state_dict() if self.ema else self.model.state_dict()

    def _loop(self, stream: Iterator[Any], interrupts: Interrupts) -> str:
        """Take steps until there is a reason not to; returns the reason."""
        budget = Budget.of(self.schedule, self.state)
        if self.state.unmeasured:
            if self.evaluate is not None:
                self._validate(self.evaluate)
            self._save(self.keeper.step_path(self.state.step))
        reason, begun = self._ended(), self.state.step
        while reason is None:
            self._step(stream, budget)
            if self._log_due():
                self.recorder.window(self.state)
            interrupted = self._agree(interrupts)
            if self.evaluate is not None and self._due(self.settings.validate_every):
                self.state.unmeasured = interrupted  # who stops it should not wait; it is measured when it goes on
                if not interrupted:
                    self._validate(self.evaluate)
            reason = INTERRUPTED if interrupted else self._ended()
            if reason or self._due(self.settings.checkpoint_every):
                self._save(self.keeper.step_path(self.state.step))
        if reason != INTERRUPTED:
            self._keep_last(begun)
        return reason

    def _keep_last(self, begun: int) -> None:
        """Save the last weights as ``best.pt`` if no validation gave a value to choose by."""
        path = self.keeper.best_path
        if self.evaluate is not None and self.state.best is None and (self.state.step > begun or not path.exists()):
            self._save(path, whole=False)

    def _agree(self, interrupts: Interrupts) -> bool:
        """Whether some process was interrupted; what stops one of them stops all."""
        stopped, interrupted = self.world.any(self._stop_reason is not None, interrupts.requested)
        if stopped and self._stop_reason is None:
            self._stop_reason = "stopped by another process"
        return interrupted

    def _step(self, stream: Iterator[Any], budget: Budget | None) -> None:
        """One optimizer step and its bookkeeping."""
        state, before = self.state, self.stopwatch.seconds
        with self.stopwatch.running():
            expected = None
            if budget and state.total is None:
                expected = self.world.first(partial(budget.expected, state.step, state.seconds))
            now = factor(self.schedule, state.step, state.total, self.steps_per_epoch, expected)
            lr = set_rates(self.optimizer, now)
            batches, images = self._fetch(stream)
            rank = [self.world.rank] if self.world.rank else []
            seed_all(mix(self.settings.seed, state.step, *rank))  # dropout must not depend on data loading
            result = self.stepper(batches, images)
            state.step += 1
            if self.ema:
                self.ema.update(state.step)
        state.seconds = self.stopwatch.seconds
        if budget and state.total is None:
            state.total = self.world.first(partial(budget.fix, state.step, state.seconds))
        self.recorder.step(state, result, lr, self.images_per_step, state.seconds - before)
        outputs = {"loss": result.loss, "grad_norm": result.norm}
        self._call("after_train_iter", batch_idx=state.step - 1, data_batch=batches, outputs=outputs)

    def _fetch(self, stream: Iterator[Any]) -> tuple[list[Any], int]:
        """Fetch this process's micro-batches, with the step's seed, and count the images of all processes.

        Raises:
            DataError: some process cannot read a picture; the steps before it are saved.
        """
        batches: list[Any] = []
        error: DataError | None = None
        try:
            for _ in range(self.settings.accumulate):
                batches.append(next(stream))
                batches[-1].seed = mix(self.settings.seed, self.state.step)
        except DataError as unreadable:
            error = unreadable
        failed, images = self.world.totals(error is not None, count_images(batches))
        if failed and (found := self.world.first_error(error)) is not None:
            raise self._unreadable(found) from None
        return batches, images

    def _unreadable(self, error: Exception) -> DataError:
        """The error about a picture with the way on, once the steps before it are saved."""
        return DataError(f"{error}; {self.keeper.way_on(self.state.step, self._save)}")

    def _validate(self, evaluate: Evaluate) -> None:
        """Measure the weights people will use; keep them when they are the best so far."""
        start = time.perf_counter()
        self.state.unmeasured = True
        try:
            call = partial(measure, self.model, evaluate, self.ema, self.precision)
            self.state.metrics = self.world.first(call)
        except DataError as error:
            raise self._unreadable(error) from None
        self.state.unmeasured, self.state.measured = False, self.state.step
        is_best = self.state.take_in(best_of(self.state.metrics, self.settings), self.settings.min_gain)
        self.recorder.validation(self.state, time.perf_counter() - start)
        if is_best:
            self._save(self.keeper.best_path, whole=False)
        self._call("after_val_epoch", metrics=self.state.metrics)

    def _save(self, path: Path, *, whole: bool = True) -> None:
        """Write a checkpoint in the main process: the whole state, or what it takes to use the weights."""
        if not self.world.main:
            return
        self.recorder.log.sync()
        contents = pack(self, whole=whole)
        self._call("before_save_checkpoint", checkpoint=contents)
        self.keeper.save(path, contents)

    def _ended(self) -> str | None:
        """Why there is no further step to take, or None."""
        if self.state.total is not None and self.state.step >= self.state.total:
            return "finished"
        if self.settings.patience is not None and self.state.stale >= self.settings.patience:
            return "no gain"
        return self._stop_reason

    def _due(self, every: float | None) -> bool:
        """Whether the step just taken passed a multiple of ``every`` epochs or was the last."""
        return self.state.step == self.state.total or falls_due(self.state.step, every, self.steps_per_epoch)

    def _log_due(self) -> bool:
        return self.state.step == self.state.total or self.state.step % self.settings.log_every == 0

    def _on_interrupt(self) -> None:
        self.reporter.say("finishing this step and saving; once more to stop at once")

    def _call(self, name: str, **details: Any) -> None:
        for hook in self.hooks:
            if (method := getattr(hook, name, None)) is not None:
                method(self, **details)
