"""``tldet train``: from a config to a measured detector."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tldet.config import Config, build, load, parse_options
from tldet.data.coco import CocoDataset
from tldet.data.loader import BatchOrder, Collate, Samples, collate, train_batches
from tldet.engine.log import LOG_NAME, read_log
from tldet.engine.memory import keep_freed_memory
from tldet.engine.precision import choose
from tldet.engine.progress import ConsoleReporter
from tldet.engine.settings import TrainSettings
from tldet.engine.state import TrainResult, seed_all
from tldet.engine.trainer import Trainer
from tldet.engine.validation import Evaluate, best_of
from tldet.engine.verdict import judge
from tldet.errors import DataError, TrainingError
from tldet.evaluation.report import CocoResult
from tldet.models.backbones import trainable
from tldet.models.classifier import Classifier
from tldet.models.detector import Detector, build_detector
from tldet.registry import HOOKS
from tldet.transfer.param_groups import build_optimizer, group_table
from tldet.transfer.start import init_from as init_from_checkpoint
from tldet.transfer.start import load_start
from tldet.transfer.weights import load_backbone_weights
from tldet.workflows.parts import (
    Settings,
    Validation,
    build_dataset,
    check_class_count,
    check_masks,
    checked_settings,
    pick_device,
    versions,
)

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)


@dataclass
class Outcome:
    """What training left.

    Attributes:
        work_dir: the run's folder.
        train: steps, seconds, checkpoints.
        result: the COCO numbers of the last validation; None without one.
    """

    work_dir: Path
    train: TrainResult
    result: CocoResult | None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to use: the best one, or the last where none was measured."""
        return self.train.best_checkpoint or self.train.checkpoint


def train(
    config: str | Path | Config,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    options: Sequence[str] = (),
    console: Console | None = None,
    backbone_weights: bool = True,
) -> Outcome:
    """Train what a config describes.

    Args:
        config: a file, a shipped config's name, or a loaded config.
        work_dir: where checkpoints and the log go; ``runs/NAME`` by default.
        resume: go on from the newest readable checkpoint there; excludes ``init_from``.
        init_from: a tldet checkpoint whose weights are the start.
        options: ``a.b=c`` on top of the config.
        console: shows progress and the numbers; silent when None.
        backbone_weights: load the backbone's pretrained weights.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    if resume and init_from:
        raise TrainingError("resume and init-from exclude each other: a resumed run brings its own weights")
    keep_freed_memory()
    cfg = config if isinstance(config, Config) else load(config, parse_options(options))
    settings = checked_settings(cfg)
    folder = Path(work_dir) if work_dir else Path("runs") / Path(cfg.source).stem
    seed = settings.training.seed
    data = build_dataset(cfg["data"]["train"], seed, path="data.train")
    if data.index.crowd.all():
        raise DataError(f"{data.index.path}: holds no object to learn from")
    check_class_count(cfg, data)
    val = None
    if cfg.get("data.val"):
        val = build_dataset(cfg["data"]["val"], seed, data.class_names, path="data.val")
    seed_all(seed)
    detector = build_detector(cfg["model"], data.class_names)
    check_masks(cfg, detector, data)
    source = start_weights(detector, resume, init_from, cfg.get("model.weights.source"), backbone_weights)
    validation = Validation(val, settings.loader, settings.evaluation) if val else None
    if validation:
        best_of(dict.fromkeys(validation.names, 0.0), settings.training)  # a wrong name is said before training
    trainer = assemble(cfg, settings, folder, detector, data, validation, _meta(cfg, data, source), console)
    result = trainer.run(resume=resume)
    outcome = Outcome(folder, result, validation.result if validation else None)
    _report(outcome, settings.training, console)
    return outcome


def start_weights(model: Any, resume: bool, init_from: str | Path | None, start: str | None, pretrained: bool) -> str:
    """Fill the model from where it starts; nothing is fetched when a checkpoint brings the weights."""
    backbone: Any = model.backbone
    source = "random"
    if resume:
        source = "resumed"
    elif init_from:
        source = str(init_from)
        log.info("%s", init_from_checkpoint(model, init_from).summary())
    elif start:
        source = start
        log.info("%s", load_start(model, start).summary())
    elif backbone.weights_source and pretrained:
        log.info("%s", load_backbone_weights(backbone, backbone.weights_source).summary())
        source = backbone.weights_source
    backbone.freeze()
    return source


def assemble(
    cfg: Config,
    settings: Settings,
    folder: Path,
    model: Detector | Classifier,
    data: Samples,
    validation: Evaluate | None,
    meta: Mapping[str, Any],
    console: Console | None,
    collate: Collate = collate,
) -> Trainer:
    """The trainer of a checked config: order, precision, optimizer, hooks.

    Args:
        cfg: the config.
        settings: its plain sections.
        folder: the run's folder.
        model: with its starting weights.
        data: what it trains on.
        validation: measures it; None never does.
        meta: what checkpoints say of the run.
        console: shows progress; silent when None.
        collate: samples to a batch.
    """
    loader, training = settings.loader, settings.training
    order = BatchOrder(data.sizes, loader.batch_size, training.seed, group_aspect=loader.group_aspect)
    device = pick_device()
    model.to(device).train()
    pin = device.type == "cuda"

    def batches(start: int) -> Any:
        return train_batches(data, order, start=start, workers=loader.workers, collate=collate, pin=pin)

    def trial() -> torch.Tensor:
        batch = next(train_batches(data, order, collate=collate))
        return torch.stack(list(model.loss(batch.to(device)).values())).sum()

    work = repr((loader.batch_size, cfg["data"]["train"].get("transforms")))
    precision = choose(model, device, training.precision, trial, work)
    log.info("computing in %s", precision.describe())
    optimizer = build_optimizer(model, cfg["optimizer"], order.batch_size * training.accumulate)
    log.info("%d of %d parameters learn", trainable(model), sum(p.numel() for p in model.parameters()))
    for name, count, lr, decay in group_table(optimizer):
        log.info("  %s: %d parameters, learning rate %g, weight decay %g", name, count, lr, decay)
    return Trainer(
        model,
        optimizer,
        batches,
        validation,
        settings.schedule,
        training,
        folder,
        steps_per_epoch=len(order) / training.accumulate,
        batch_size=order.batch_size,
        precision=precision,
        reporter=ConsoleReporter(console) if console else None,
        config=cfg.data,
        meta=meta,
        hooks=_hooks(cfg.get("hooks") or []),
    )


def _hooks(sections: Sequence[dict[str, Any]]) -> list[Any]:
    """The hooks of a config, in the order they are called in."""
    if not sections:
        return []
    from tldet.engine.hooks import by_priority  # takes two seconds to import

    return by_priority([build(HOOKS, section) for section in sections])


def _meta(cfg: Config, data: CocoDataset, source: str) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    steps = cfg.get("data.val.transforms") or cfg.get("data.train.transforms") or []
    resize = next((s for s in steps if s["type"] == "Resize"), {"short": 800, "long": 1333})
    short = resize.get("short", 800)
    return {
        "class_names": list(data.class_names),
        "category_ids": list(data.category_ids),
        "input": {"short": short if isinstance(short, int) else max(short), "long": resize.get("long", 1333)},
        "weights_source": source,
        "versions": versions(),
    }


def _report(outcome: Outcome, training: TrainSettings, console: Console | None) -> None:
    if console is None:
        return
    if outcome.result is not None:
        console.print(*outcome.result.tables(), sep="\n")
    if outcome.result is not None and training.validate_every is not None:  # one validation is no curve
        text = judge(read_log(outcome.work_dir / LOG_NAME), training.best_metric).text
        console.print(text, markup=False, highlight=False)
    t = outcome.train
    rate = f", {t.seconds / t.step:.2f} s a step" if t.step else ""
    console.print(f"{t.step} steps in {t.seconds:.0f} s of training{rate}; checkpoint: {outcome.checkpoint}")
