"""Build the trainer of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from tldet.config import Config, build
from tldet.data.loader import BatchOrder, Collate, Samples, collate, train_batches
from tldet.engine.distributed import World, current
from tldet.engine.loop import Evaluate
from tldet.engine.precision import Precision, choose, measure_compiled
from tldet.engine.progress import Reporter, Reporters, make_reporter
from tldet.engine.state import TrainSettings
from tldet.engine.trainer import Trainer
from tldet.errors import ConfigError
from tldet.models.classifier import Classifier
from tldet.models.compiling import compile_if_faster
from tldet.models.detector import Detector
from tldet.registry import HOOKS
from tldet.system.device import pick_device
from tldet.transfer.freeze import UnfreezeStage, Unfreezing, freeze
from tldet.transfer.l2_sp import L2SP, L2SPSettings, regularized_names, saved_initial_weights
from tldet.transfer.param_groups import build_optimizer
from tldet.transfer.parameter_table import parameter_rows, parameter_table
from tldet.workflows.requests import RunRequest
from tldet.workflows.training.initial_weights import LoadedWeights
from tldet.workflows.training.schema import Settings
from tldet.workflows.training.validation import Validation

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """Everything that the trainer of a run is built from.

    Attributes:
        config: the config.
        settings: plain sections of the config.
        folder: output directory.
        model: the model with its initial weights.
        data: training data.
        validation: evaluates the model; None for no validation.
        meta: ``meta`` section of checkpoints.
        initial: source of the initial weights.
        request: provides console and callbacks.
        collate: builds a batch from samples.
        summary: a line about each split.
    """

    config: Config
    settings: Settings
    folder: Path
    model: Detector | Classifier
    data: Samples
    validation: Evaluate | None
    meta: Mapping[str, Any]
    initial: LoadedWeights
    request: RunRequest
    collate: Collate = collate
    summary: Sequence[str] = ()


def assemble(run: Run) -> Trainer:
    """Build the trainer of a run: frozen layers, sample order, precision, optimizer, hooks."""
    training, world = run.settings.training, current()
    stages = freeze(run.model, run.settings.freeze)
    device = _device(training.device, world)
    run.model.to(device).train()
    order, batches = _batches(run, device, world)
    precision = _precision(run, order, device, world)
    optimizer, own = _trainable(run, stages, order.batch_size * training.accumulate * world.size)
    return Trainer(
        run.model,
        optimizer,
        batches,
        run.validation,
        run.settings.schedule,
        training,
        run.folder,
        steps_per_epoch=len(order) / (training.accumulate * world.size),
        batch_size=order.batch_size,
        world=world,
        precision=precision,
        reporter=_reporter(run, optimizer),
        config=run.config.data,
        meta=run.meta,
        hooks=[*own, *_callbacks(run.config.get("hooks") or [], run.request.callbacks)],
    )


def _batches(run: Run, device: torch.device, world: World) -> tuple[BatchOrder, Callable[[int], Any]]:
    """Return the order of the samples, and a function that yields the batches of this process from a step on."""
    loader, training = run.settings.loader, run.settings.training
    order = BatchOrder(run.data.sizes, loader.fixed_batch_size(), training.seed, group_aspect=loader.group_aspect)
    workers, pin = loader.worker_count(device), device.type == "cuda"
    if loader.workers == "auto":
        log.info("loader processes: %d (device %s)", workers, device.type)

    def batches(start: int) -> Any:
        own = start * world.size + world.rank
        return train_batches(
            run.data, order, start=own, every=world.size, workers=workers, collate=run.collate, pin=pin
        )

    return order, batches


def _precision(run: Run, order: BatchOrder, device: torch.device, world: World) -> Precision:
    """Choose precision and compilation by timing steps on one batch."""
    training = run.settings.training

    @cache
    def example() -> Any:
        return next(train_batches(run.data, order, collate=run.collate)).to(device)

    def trial() -> torch.Tensor:
        return torch.stack(list(run.model.loss(example()).values())).sum()

    work = repr((run.settings.loader.batch_size, run.config["data"]["train"].get("transforms")))
    precision = world.first(lambda: choose(run.model, device, training.precision, trial, work))
    log.info("%s", precision.describe())
    if training.compile:
        seconds, cached = world.first(lambda: measure_compiled(run.model, trial, precision, work))
        log.info("%s", compile_if_faster(run.model, seconds, cached))
    example.cache_clear()
    return precision


def _reporter(run: Run, optimizer: torch.optim.Optimizer) -> Reporter:
    """Create the progress display, and the loggers of the config in the main process."""
    training, validation = run.settings.training, run.validation
    progress = make_reporter(run.request.console, _shown(validation, training))
    if not training.loggers or not current().main:
        return progress
    from tldet.engine.loggers import SAMPLES, Loggers, make_loggers

    if isinstance(validation, Validation):
        validation.drawn = SAMPLES
    return Reporters([progress, Loggers(make_loggers(training.loggers, run.folder), optimizer, validation)])


def _device(name: str, world: World) -> torch.device:
    """Return the device of ``training.device``; each process of a distributed run has its own.

    Raises:
        ConfigError: there is no such device, or it does not fit the process group.
    """
    device = pick_device(name)
    if world.size > 1 and (device.index is not None or device.type != pick_device().type):
        raise ConfigError(
            f"training.device {name} (--device): each of the {world.size} processes uses its own {pick_device().type} "
            "device; leave it out, or select devices by CUDA_VISIBLE_DEVICES"
        )
    return device


def _shown(validation: Evaluate | None, training: TrainSettings) -> tuple[str, ...]:
    """Return the metrics that are printed after a validation; ``log.jsonl`` has all metrics."""
    headline: tuple[str, ...] = getattr(validation, "headline", ())
    return tuple(dict.fromkeys([*headline, training.best_metric, "val_loss"]))


def _trainable(run: Run, stages: Sequence[UnfreezeStage], batch: int) -> tuple[torch.optim.Optimizer, list[Any]]:
    """Return the optimizer and the hooks for unfreezing and L2-SP; print the parameter table."""
    settings, model, console = run.settings, run.model, run.request.console
    hooks: list[Any] = [Unfreezing(model, stages)] if stages else []
    pulled: dict[str, float] = {}
    if settings.l2_sp:
        hooks.append(pull := _pull(model, settings.l2_sp, run.initial, run.folder))
        pulled = dict.fromkeys(pull.parameters, settings.l2_sp.alpha)
    optimizer = build_optimizer(model, run.config["optimizer"], batch, pulled)
    rows = parameter_rows(model, optimizer, stages, pulled)
    if console:
        console.print(parameter_table(rows))
    else:
        for row in rows:
            log.info("%s", row.line())
    return optimizer, hooks


def _pull(model: torch.nn.Module, settings: L2SPSettings, initial: LoadedWeights, folder: Path) -> L2SP:
    """Create the L2-SP hook, with the current weights as target or, in a resumed run, the stored initial weights."""
    if initial.resumed:
        target = saved_initial_weights(folder)
        return L2SP(model, list(target), settings.alpha, target)
    return L2SP(model, regularized_names(model, initial.loaded, settings), settings.alpha)


def _callbacks(sections: Sequence[dict[str, Any]], given: Sequence[Any]) -> list[Any]:
    """Return the callbacks of a config and the given callbacks, in the order of their calls.

    Raises:
        ConfigError: a callback has an unknown hook point.
    """
    if not sections and not given:
        return []
    from tldet.engine.callbacks import by_priority, check_callback  # takes two seconds to import

    built = [build(HOOKS, section, f"hooks.{number}") for number, section in enumerate(sections)]
    for number, callback in enumerate(built):
        check_callback(callback, f"hooks.{number}: {sections[number]['type']}")
    for callback in given:
        check_callback(callback)
    return by_priority([*built, *given])
