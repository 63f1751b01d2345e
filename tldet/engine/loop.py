"""The training loop: optimizer steps, log lines, validations and checkpoints.

A step is a pure function of the state before it and of its number: ``batches`` returns images by number, random
generators are seeded from (seed, step), and the learning rate is computed from the step. A step is followed by its log
line, validation and checkpoint, in this order, so that the log up to the step of a checkpoint was written before the
checkpoint. A resumed run is therefore bit-identical to an uninterrupted one (CPU, same number of threads).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from tldet.engine.precision import Precision
from tldet.engine.schedule import Budget, factor, falls_due, rates, set_rates
from tldet.engine.step import Feed, StepResult
from tldet.errors import DataError, TrainingError
from tldet.models.compiling import uncompiled
from tldet.models.ema import Ema
from tldet.system.determinism import mix_seed, seed_all
from tldet.system.out_of_memory import OutOfMemoryError, StepRetry, is_out_of_memory
from tldet.system.signals import Interrupts, Stopped

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

Evaluate = Callable[[nn.Module], Mapping[str, float]]
INTERRUPTED = "interrupted"
_T = TypeVar("_T")


def train_loop(run: Trainer, feed: Feed, interrupts: Interrupts) -> str:
    """Take steps until the run ends; return the reason.

    Raises:
        NotFiniteError: a loss or gradient is not finite.
        DataError: an image cannot be read; the steps before it are saved.
        TrainingError: a step or a validation does not fit into memory; the steps before it are saved.
    """
    state, settings = run.state, run.settings
    budget, first, interrupted = Budget.of(run.schedule, state), state.step, False
    if state.validation_pending:
        interrupted = not _validate(run, interrupts)
        run.checkpoints.save_step(run)
    reason = INTERRUPTED if interrupted else run.end()
    while reason is None:
        interrupted = _step(run, feed, budget, interrupts)
        if state.step == state.total or state.step % settings.log_every == 0:
            run.log_writer.window(state)
        if run.is_due(settings.validate_every):
            state.validation_pending = run.evaluate is not None
            interrupted = interrupted or not _validate(run, interrupts)
        reason = INTERRUPTED if interrupted else run.end()
        if reason or run.is_due(settings.checkpoint_every) or run.checkpoints.is_old(settings.checkpoint_minutes):
            run.checkpoints.save_step(run)
    if reason != INTERRUPTED and run.evaluate is not None and state.best is None:
        _save_last_as_best(run, first)
    return reason


def _save_last_as_best(run: Trainer, first: int) -> None:
    """Save the last weights as ``best.pt``, if steps were taken after ``first`` or there is no such file."""
    if run.state.step > first or not run.checkpoints.best_path.exists():
        run.checkpoints.save_best(run)


def _step(run: Trainer, feed: Feed, budget: Budget | None, interrupts: Interrupts) -> bool:
    """Take and log one optimizer step; return True if a signal asks to stop."""
    state, before = run.state, run.stopwatch.seconds
    with run.stopwatch.running():
        lr = set_rates(run.optimizer, _factor(run, budget))
        try:
            batches, images = feed.take(state.step)
        except DataError as error:
            raise DataError(f"{error}; {run.checkpoints.save_before_error(run, 'fix the data')}") from None
        if state.step == 0 or falls_due(state.step, 1.0, run.steps_per_epoch):
            run.call_hooks("before_train_epoch")
        run.call_hooks("before_train_iter", batch_idx=state.step, data_batch=batches)
        result = _optimize(run, batches, images, partial(_look_ahead, run, feed, interrupts))
        state.step += 1
        if run.ema:
            run.ema.update(state.step)
    state.seconds = run.stopwatch.seconds
    if budget and state.total is None:
        state.total = run.world.first(partial(budget.fix, state.step, state.seconds))
    run.log_writer.step(state, result, lr, run.images_per_step, state.seconds - before)
    loss = torch.tensor(result.loss, dtype=torch.float64)  # hooks of mmengine expect a tensor
    outputs = {"loss": loss, "losses": result.parts, "grad_norm": result.norm, "lr": rates(run.optimizer)}
    run.call_hooks("after_train_iter", batch_idx=state.step - 1, data_batch=batches, outputs=outputs)
    if run.is_due(1.0):
        run.call_hooks("after_train_epoch")
    run.iter = state.step
    *totals, stopped, interrupted = result.totals
    feed.set_totals(totals)
    run.all_stop = stopped > 0
    return interrupted > 0 or (run.world.size == 1 and interrupts.requested)


def _factor(run: Trainer, budget: Budget | None) -> float:
    """Return the learning-rate factor of the next step."""
    state, expected = run.state, None
    if budget and state.total is None:
        expected = run.world.first(partial(budget.expected, state.step, state.seconds))
    return factor(run.schedule, state.step, state.total, run.steps_per_epoch, expected)


def _look_ahead(run: Trainer, feed: Feed, interrupts: Interrupts) -> list[int]:
    """Load the data of the next step while the device computes; return the numbers to sum over processes."""
    flags = [int(run.stop_reason is not None), int(interrupts.requested)]
    following = run.state.step + 1
    if not any(flags) and (run.state.total is None or following < run.state.total):
        feed.load(following)
    return [*feed.counts(), *flags]


def _optimize(run: Trainer, batches: list[Any], images: int, numbers: Callable[[], list[int]]) -> StepResult:
    """Take a step on the micro-batches, which are split further if memory runs out.

    Raises:
        TrainingError: they do not fit into memory; the steps before it are saved.
    """
    rank = [run.world.rank] if run.world.rank else []

    def step(parts: list[Any]) -> StepResult:
        seed_all(mix_seed(run.settings.seed, run.state.step, *rank))  # dropout must not depend on data loading
        return run.stepper(parts, images, numbers)

    try:
        result, run.state.split = take_in_parts(run.retry, step, batches, run.state.split)
    except OutOfMemoryError as error:
        saved = "the step is not saved"
        if not run.world.main:  # the main process, which saves, may be waiting for this one
            saved = f"in process {run.world.rank}; resume with --resume from the last checkpoint"
        elif error.whole:
            saved = run.checkpoints.save_before_error(run, "apply one of these changes")
        raise TrainingError(f"step {run.state.step + 1}: {error}; {saved}") from None
    return result


def take_in_parts(
    retry: StepRetry, step: Callable[[list[Any]], _T], batches: Sequence[Any], parts: int
) -> tuple[_T, int]:
    """Take a step; while memory runs out, repeat it with micro-batches split into twice as many parts.

    Args:
        retry: undoes the step before it is repeated.
        step: takes the step on micro-batches, from zeroing the gradients to updating the weights.
        batches: micro-batches as loaded.
        parts: number of parts of each micro-batch in the step before.

    Returns:
        The result, and the number of parts of each micro-batch.

    Raises:
        OutOfMemoryError: the step does not fit and cannot be reduced (further).
    """
    while True:
        smaller = retry.prepare(batches, parts)
        try:
            return step(smaller), parts
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        retry.restore(smaller, len(batches))  # outside of the handler: the error keeps tensors alive
        parts *= 2


def _validate(run: Trainer, interrupts: Interrupts) -> bool:
    """Evaluate the deployed weights, and save them as ``best.pt`` if they are the best so far.

    Returns:
        False if a signal ended the evaluation; the resumed run repeats it.

    Raises:
        DataError: an image cannot be read; the steps are saved.
        TrainingError: not enough memory; the steps are saved.
    """
    if run.evaluate is None:
        return True
    start, state = time.perf_counter(), run.state
    run.call_hooks("before_val")
    run.call_hooks("before_val_epoch")
    evaluate = partial(_metrics, run.model, interrupts.ending(run.evaluate), run.ema, run.precision)
    try:
        state.metrics = run.world.first(evaluate)
    except Stopped:
        return False
    except DataError as error:
        raise DataError(f"{error}; {run.checkpoints.save_before_error(run, 'fix the data')}") from None
    except OutOfMemoryError as error:
        raise TrainingError(
            f"{error}; {run.checkpoints.save_before_error(run, 'apply one of these changes')}"
        ) from None
    state.validation_pending, state.validated_step = False, state.step
    is_best = state.record_metric(run.settings.best_of(state.metrics), run.settings.min_gain)
    run.log_writer.validation(state, time.perf_counter() - start)
    if is_best:
        run.checkpoints.save_best(run)
    run.call_hooks("after_val_epoch", metrics=state.metrics)
    run.call_hooks("after_val")
    return True


def _metrics(model: nn.Module, evaluate: Evaluate, ema: Ema | None, precision: Precision) -> dict[str, float]:
    """Evaluate a model in eval mode, with averaged weights if there are any.

    Raises:
        OutOfMemoryError: not enough memory for the images or the model.
    """
    model.eval()
    try:
        averaged = ema.applied() if ema else nullcontext()
        with averaged, uncompiled(model), torch.no_grad(), precision.autocast():
            return {name: float(value) for name, value in evaluate(model).items()}
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        reduce = "use fewer --workers or a smaller data.loader.eval_batch_size"
        raise OutOfMemoryError(f"out of memory in validation: {reduce}") from None
    finally:
        model.train()
