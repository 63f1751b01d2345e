"""The trainer of a checked config."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tldet.config import Config, build
from tldet.data.loader import BatchOrder, Collate, Samples, collate, train_batches
from tldet.engine.compiling import compile_where_it_pays, measure_compiled
from tldet.engine.distributed import World, current
from tldet.engine.l2_sp import L2SP, L2SPSettings, anchored, saved_start
from tldet.engine.precision import choose, pick_device
from tldet.engine.progress import Reporter, Reporters, make_reporter
from tldet.engine.settings import TrainSettings
from tldet.engine.trainer import Trainer
from tldet.engine.unfreezing import Unfreezing
from tldet.engine.validation import Evaluate
from tldet.errors import ConfigError
from tldet.models.classifier import Classifier
from tldet.models.detector import Detector
from tldet.registry import HOOKS
from tldet.transfer.freeze import Release, freeze
from tldet.transfer.param_groups import build_optimizer
from tldet.transfer.parts_table import parts, shown
from tldet.workflows.parts import Settings, Validation
from tldet.workflows.start import Started

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


def assemble(
    cfg: Config,
    settings: Settings,
    folder: Path,
    model: Detector | Classifier,
    data: Samples,
    validation: Evaluate | None,
    meta: Mapping[str, Any],
    started: Started,
    console: Console | None,
    collate: Collate = collate,
) -> Trainer:
    """The trainer of a checked config: what is frozen, order, precision, optimizer, hooks.

    Args:
        cfg: the config.
        settings: its plain sections.
        folder: the run's folder.
        model: with its starting weights.
        data: what it trains on.
        validation: measures it; None never does.
        meta: what checkpoints say of the run.
        started: what came from where it starts.
        console: shows progress; silent when None.
        collate: samples to a batch.
    """
    loader, training, world = settings.loader, settings.training, current()
    releases = freeze(model, settings.freeze)
    order = BatchOrder(data.sizes, loader.fixed_batch_size(), training.seed, group_aspect=loader.group_aspect)
    device = _device(training.device, world)
    model.to(device).train()
    pin = device.type == "cuda"

    workers = loader.worker_count(device)
    if loader.workers == "auto":
        log.info("loader processes: %d (device %s)", workers, device.type)

    def batches(start: int) -> Any:
        own = start * world.size + world.rank
        return train_batches(data, order, start=own, every=world.size, workers=workers, collate=collate, pin=pin)

    @cache
    def example() -> Any:
        return next(train_batches(data, order, collate=collate)).to(device)

    def trial() -> torch.Tensor:
        return torch.stack(list(model.loss(example()).values())).sum()

    work = repr((loader.batch_size, cfg["data"]["train"].get("transforms")))
    precision = world.first(lambda: choose(model, device, training.precision, trial, work))
    log.info("computing in %s", precision.describe())
    if training.compile:
        measured = world.first(lambda: measure_compiled(model, trial, precision, work))
        log.info("%s", compile_where_it_pays(model, measured))
    example.cache_clear()
    batch = order.batch_size * training.accumulate * world.size
    optimizer, own = _learning(cfg["optimizer"], settings, model, releases, batch, started, folder, console)
    return Trainer(
        model,
        optimizer,
        batches,
        validation,
        settings.schedule,
        training,
        folder,
        steps_per_epoch=len(order) / (training.accumulate * world.size),
        batch_size=order.batch_size,
        world=world,
        precision=precision,
        reporter=_reporter(console, validation, training, folder, optimizer),
        config=cfg.data,
        meta=meta,
        hooks=[*own, *_hooks(cfg.get("hooks") or [])],
    )


def _reporter(
    console: Console | None,
    validation: Evaluate | None,
    training: TrainSettings,
    folder: Path,
    optimizer: torch.optim.Optimizer,
) -> Reporter:
    """Create what shows progress, and the loggers of the config in the main process."""
    progress = make_reporter(console, _shown(validation, training))
    if not training.loggers or not current().main:
        return progress
    from tldet.engine.loggers import SAMPLES, Loggers, make_loggers

    if isinstance(validation, Validation):
        validation.drawn = SAMPLES
    return Reporters([progress, Loggers(make_loggers(training.loggers, folder), optimizer, validation)])


def _device(name: str, world: World) -> torch.device:
    """Return the device of ``training.device``; each of several processes has its own.

    Raises:
        ConfigError: there is no such device, or several processes were joined over other ones.
    """
    device = pick_device(name)
    if world.size > 1 and (device.index is not None or device.type != pick_device().type):
        raise ConfigError(
            f"training.device {name} (--device): each of the {world.size} processes uses its own {pick_device().type} "
            "device; leave it out, or choose devices with CUDA_VISIBLE_DEVICES"
        )
    return device


def _shown(validation: Evaluate | None, training: TrainSettings) -> tuple[str, ...]:
    """Return the metrics of the line that a validation prints; ``log.jsonl`` has all of them."""
    headline: tuple[str, ...] = getattr(validation, "headline", ())
    return tuple(dict.fromkeys([*headline, training.best_metric, "val_loss"]))


def _learning(
    section: Mapping[str, Any],
    settings: Settings,
    model: torch.nn.Module,
    releases: Sequence[Release],
    batch: int,
    started: Started,
    folder: Path,
    console: Console | None,
) -> tuple[torch.optim.Optimizer, list[Any]]:
    """The optimizer and the hooks that see to what learns, and the table that says so."""
    hooks: list[Any] = [Unfreezing(model, releases)] if releases else []
    pulled: dict[str, float] = {}
    if settings.l2_sp:
        hooks.append(pull := _pull(model, settings.l2_sp, started, folder))
        pulled = dict.fromkeys(pull.parameters, settings.l2_sp.alpha)
    optimizer = build_optimizer(model, section, batch, pulled)
    rows = parts(model, optimizer, releases, pulled)
    if console:
        console.print(shown(rows))
    else:
        for row in rows:
            log.info("%s", row.line())
    return optimizer, hooks


def _pull(model: torch.nn.Module, settings: L2SPSettings, started: Started, folder: Path) -> L2SP:
    """A new run is pulled to the weights that it has now, a resumed one to those that its first part had."""
    if started.resumed:
        start = saved_start(folder)
        return L2SP(model, list(start), settings.alpha, start)
    return L2SP(model, anchored(model, started.carried, settings), settings.alpha)


def _hooks(sections: Sequence[dict[str, Any]]) -> list[Any]:
    """The hooks of a config, in the order they are called in."""
    if not sections:
        return []
    from tldet.engine.hooks import by_priority  # takes two seconds to import

    return by_priority([build(HOOKS, section) for section in sections])
