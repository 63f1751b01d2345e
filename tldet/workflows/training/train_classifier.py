"""Train a classifier and export its backbone, with the trainer and configs of detection."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from tldet.components import needed_imports
from tldet.config import Config, build
from tldet.data.eval_batches import eval_batches
from tldet.data.fingerprint import folder_fingerprint
from tldet.data.folder import ImageFolderDataset, collate_images, collate_whole
from tldet.data.settings import LoaderSettings
from tldet.engine.distributed import World
from tldet.engine.logging import LOG_NAME, read_log
from tldet.engine.state import TrainResult, TrainSettings
from tldet.errors import ConfigError
from tldet.models.classifier import build_classifier
from tldet.registry import DATASETS
from tldet.system.determinism import seed_all
from tldet.system.out_of_memory import Smaller
from tldet.text import counted, html_table
from tldet.transfer.provenance import TASK, checkpoint_outline, export_backbone
from tldet.workflows.report.finished import BestDetections, write_run_report
from tldet.workflows.requests import RunRequest
from tldet.workflows.training.assemble import Run, assemble
from tldet.workflows.training.initial_weights import WeightsSource, initial_weights
from tldet.workflows.training.meta import versions
from tldet.workflows.training.report import early
from tldet.workflows.training.resume_checks import refuse_changed_classes, warn_of_changed_data
from tldet.workflows.training.run_config import using
from tldet.workflows.training.run_folder import RunFiles
from tldet.workflows.training.schema import PRETRAIN_SCHEMA, Settings, checked_settings
from tldet.workflows.training.status import RunStatus
from tldet.workflows.training.verdict import judge

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
BACKBONE_NAME = "backbone.safetensors"
TOP = 5
_NEW_RUN = "start a new run from its weights: another --out and --cfg-options model.backbone.weights={weights}"


@dataclass(repr=False)
class Pretrained:
    """Result of pretraining.

    Attributes:
        work_dir: folder of the run.
        train: steps, seconds, checkpoints, metrics of the last validation.
        backbone: weights for ``model.backbone.weights`` of a detector; None if the checkpoints were removed.
        metrics: metrics of the checkpoint from which ``backbone`` was exported; empty if it was not evaluated.
    """

    work_dir: Path
    train: TrainResult
    backbone: Path | None
    metrics: dict[str, float]

    def __repr__(self) -> str:
        return f"Pretrained({', '.join(f'{name} {value}' for name, value in self._facts().items())})"

    def _repr_html_(self) -> str:
        return html_table("pretraining", ("", ""), list(self._facts().items()))

    def _facts(self) -> dict[str, object]:
        found = {name: f"{value:.3f}" for name, value in self.metrics.items()}
        return {"backbone": self.backbone, "steps": self.train.step, **found}


def train_classifier(
    cfg: Config,
    request: RunRequest,
    folder: Path,
    *,
    resume: bool = False,
    files: RunFiles | None = None,
    report: bool = False,
) -> Pretrained:
    """Train a classifier by a config, and export the backbone of its best checkpoint.

    Args:
        cfg: a config as in ``configs/pretrain``.
        request: provides console and callbacks.
        folder: directory of checkpoints, log and ``backbone.safetensors``.
        resume: resume from the newest readable checkpoint there.
        files: writes the run's config when training begins.
        report: write a report to the folder at the end.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    with using(folder) as world, RunStatus(folder) as status:
        settings = checked_settings(cfg, PRETRAIN_SCHEMA)
        trainer = assemble(_run(cfg, settings, request, folder, world, resume=resume))
        status.follow(trainer, [], None)
        run_report = BestDetections()
        trainer.hooks.insert(0, run_report)
        with files.applied(trainer) if files else nullcontext():
            result = trainer.run(resume=resume)
        best = result.best_checkpoint or result.checkpoint
        backbone = world.first(lambda: export_backbone(best, folder / BACKBONE_NAME) if best else None)
        metrics = world.first(lambda: dict(checkpoint_outline(best)["meta"]["trained"]["metrics"]) if best else {})
        outcome = Pretrained(folder, result, backbone, metrics)
        _report(outcome, settings.training, request.console)
        if report and world.main:
            write_run_report(folder, best, run_report, request.console)
    return outcome


def _run(cfg: Config, settings: Settings, request: RunRequest, folder: Path, world: World, *, resume: bool) -> Run:
    """Build the data, the classifier with its initial weights, and its evaluation."""
    seed = settings.training.seed
    data = world.main_first(lambda: _dataset(cfg, "train", seed))
    val = _dataset(cfg, "val", seed, data.class_names) if cfg.get("data.val") else None
    _show_data(data, val)
    if resume:
        refuse_changed_classes(folder, data.class_names, None, data.folder, _NEW_RUN)
    seed_all(seed)
    model = build_classifier(cfg["model"], data.class_names)
    initial = world.main_first(lambda: initial_weights(model, WeightsSource(resume=resume)))
    validation = Accuracy(val, settings.loader) if val else None
    if validation:
        settings.training.best_of(dict.fromkeys(validation.names, 0.0))  # a wrong name is an error before training
    meta = _meta(cfg, data, val)
    if resume and world.main:
        warn_of_changed_data(folder, meta["data"])
    return Run(cfg, settings, folder, model, data, validation, meta, initial, request, collate_images)


def _dataset(cfg: Config, part: str, seed: int, classes: tuple[str, ...] | None = None) -> ImageFolderDataset:
    section = dict(cfg["data"][part])
    if section["type"] != ImageFolderDataset.__name__:
        raise ConfigError(f"data.{part}.type: pretraining takes ImageFolderDataset, not {section['type']}")
    if classes is not None:
        section["classes"] = list(classes)
    dataset: ImageFolderDataset = build(DATASETS, section, f"data.{part}", seed=seed)
    return dataset


def _show_data(train: ImageFolderDataset, val: ImageFolderDataset | None) -> None:
    for name, split in (("train", train), ("val", val)):
        if split is not None:
            classes = counted(len(split.class_names), "class", "classes")
            log.info("%s: %s of %s", name, counted(len(split), "image"), classes)


def _meta(cfg: Config, data: ImageFolderDataset, val: ImageFolderDataset | None) -> dict[str, Any]:
    """Return the ``meta`` section of checkpoints."""
    splits = {"train": data, "val": val}
    return {
        "task": TASK,
        "class_names": list(data.class_names),
        "data": {name: folder_fingerprint(split) for name, split in splits.items() if split is not None},
        "weights_source": cfg.get("model.backbone.weights") or "random",
        "versions": versions(),
        "imports": needed_imports(cfg.data),
    }


class Accuracy:
    """Loss, top-1 and top-5 accuracy of a classifier on a dataset.

    Args:
        dataset: the validation images.
        loader: batch size and workers.
    """

    names = ("top1", "top5")  # metrics; larger is better
    headline = names  # metrics of the progress line

    def __init__(self, dataset: ImageFolderDataset, loader: LoaderSettings) -> None:
        self.dataset, self.loader = dataset, loader

    def __call__(self, model: Any) -> dict[str, float]:
        """Return ``top1`` and ``top5`` in 0..1, and ``val_loss`` (cross-entropy without label smoothing and mixing)."""
        device = next(model.parameters()).device
        loss, right = 0.0, torch.zeros(TOP, dtype=torch.int64)
        workers, pin = self.loader.worker_count(device), device.type == "cuda"
        batches = eval_batches(
            self.dataset, self.loader.eval_batch_size, workers=workers, collate=collate_whole, pin=pin
        )
        smaller = Smaller()
        for batch, logits in (pair for one in batches for pair in smaller(model.predict, one, device)):
            labels = batch.labels.to(device)
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
            best = logits.topk(min(TOP, logits.shape[1])).indices  # (B, T)
            hits = (best == labels[:, None]).sum(0).cpu()
            right[: len(hits)] += hits
        top = (right.cumsum(0) / len(self.dataset)).tolist()
        return {"top1": top[0], "top5": top[-1], "val_loss": loss / len(self.dataset)}


def _report(outcome: Pretrained, training: TrainSettings, console: Console | None) -> None:
    if console is None:
        return
    t, shown = outcome.train, ""
    if t.metrics and training.validate_every is not None:
        records = read_log(outcome.work_dir / LOG_NAME)
        console.print(judge(records, training.best_metric, t.comparable_from).text, markup=False, highlight=False)
    if stopped := early(t, training):
        console.print(stopped, markup=False, highlight=False)
    if outcome.metrics:
        top1, top5 = (outcome.metrics[name] for name in Accuracy.names)
        at = t.step if t.best_step is None else t.best_step
        shown = f"; weights of step {at}: top-1 {top1:.4f}, top-5 {top5:.4f}"
    rate = f", {t.seconds / t.step:.2f} s/step" if t.step else ""
    console.print(f"{counted(t.step, 'step')} in {t.seconds:.0f} s of training{rate}{shown}")
    console.print(f"backbone saved to {outcome.backbone} (--weights of tldet finetune)", highlight=False)
