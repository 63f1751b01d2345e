"""``tldet train``: train by a config and evaluate the best checkpoint."""

from __future__ import annotations

import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tldet.components import needed_imports
from tldet.config import Config, override, parse_options
from tldet.data.fingerprint import index_fingerprint
from tldet.engine.distributed import World
from tldet.errors import DataError
from tldet.models.detector import build_detector
from tldet.plugins import import_named
from tldet.system.determinism import seed_all
from tldet.transfer.class_match import class_match_table
from tldet.transfer.teacher import distilled
from tldet.workflows.report.finished import BestDetections, write_run_report
from tldet.workflows.requests import RunRequest, takes
from tldet.workflows.training.assemble import Run, assemble
from tldet.workflows.training.batch_size import resolve_batch_size
from tldet.workflows.training.data_problems import log_problems
from tldet.workflows.training.data_summary import split_lines
from tldet.workflows.training.datasets import AnyDataset, build_dataset, check_has_objects, check_images
from tldet.workflows.training.initial_weights import LoadedWeights, WeightsSource, initial_weights
from tldet.workflows.training.meta import versions
from tldet.workflows.training.outcome import Outcome, ResultCallback, stored_result
from tldet.workflows.training.recipes import load_config, without_factor
from tldet.workflows.training.report import print_outcome
from tldet.workflows.training.request import TrainRequest
from tldet.workflows.training.resume_checks import refuse_changed_classes, warn_of_changed_data
from tldet.workflows.training.run_config import using
from tldet.workflows.training.run_folder import RunFiles, has_checkpoint
from tldet.workflows.training.schema import Settings, check_class_count, checked_settings, require_masks, with_bad_image
from tldet.workflows.training.status import RunStatus
from tldet.workflows.training.validation import Validation

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
_NEW_RUN = (
    "start a new run from its weights: --init-from {weights} with another --out (--work-dir for `tldet train`) and the "
    "same --model, which copies classifier weights by class name"
)


@takes(TrainRequest)
def train(request: TrainRequest) -> Outcome:
    """Train by a config file; distributed if started by ``torchrun``.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    cfg = loaded(request)
    folder = Path(request.work_dir) if request.work_dir else Path("runs") / Path(cfg.source).stem
    resume, report = request.resume, request.report
    return run_training(cfg, request, folder, resume=resume, init_from=request.init_from, report=report)


def loaded(request: TrainRequest) -> Config:
    """Load the config of a request and apply its options.

    Raises:
        ConfigError: the config or an option is wrong.
    """
    options = parse_options(request.overrides())
    if isinstance(request.config, Config):
        cfg = override(request.config, options)
    else:
        cfg = load_config(request.config, options)
    cfg = without_factor(cfg, options)
    if request.class_aliases is None and not request.fold_names and request.on_bad_image is None:
        return cfg
    checked_settings(cfg)  # before options are written to its sections
    return replace(cfg, data=with_bad_image(request.written(cfg.data), request.on_bad_image))


def run_training(
    cfg: Config,
    request: RunRequest,
    folder: Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    files: RunFiles | None = None,
    report: bool = False,
) -> Outcome:
    """Train by a loaded config.

    Args:
        cfg: the config.
        request: provides console and callbacks.
        folder: output directory.
        resume: resume from the newest readable checkpoint there; start the run if there is no checkpoint yet.
        init_from: a tldet checkpoint with the initial weights.
        files: writes the run's config when training begins.
        report: write a report to the folder at the end.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    import_named(cfg.get("imports"), cfg.origin("imports"))
    with using(folder) as world, RunStatus(folder) as status:
        settings = checked_settings(cfg)
        resume = resume and world.first(lambda: has_checkpoint(folder, init_from))
        source = WeightsSource(resume=resume, init_from=init_from, detector=cfg.get("model.weights.source"))
        run = _prepared(cfg, settings, request, folder, source, world)
        trainer, best = assemble(run), BestDetections(run.validation)
        if isinstance(run.validation, Validation):
            trainer.hooks.insert(0, ResultCallback(run.validation))
        if report:
            trainer.hooks.insert(0, best)
        status.follow(trainer, run.summary, run.validation)
        with files.applied(trainer) if files else nullcontext():
            result = trainer.run(resume=resume)
        outcome = Outcome(folder, result, None)
        outcome.result = world.first(lambda: stored_result(outcome.checkpoint))
        if request.console is not None:
            print_outcome(outcome, settings.training, run.validation, request.console)
        if report and world.main:
            write_run_report(folder, outcome.checkpoint, best, request.console)
    return outcome


def _prepared(
    cfg: Config, settings: Settings, request: RunRequest, folder: Path, source: WeightsSource, world: World
) -> Run:
    """Build data, detector with initial weights, and evaluation of a run."""
    resumed = folder if source.resume else None
    if settings.loader.batch_size == "auto":
        size = world.first(lambda: resolve_batch_size(cfg, settings, resumed))
        cfg = override(cfg, {"data.loader.batch_size": size})
        settings = checked_settings(cfg)
    ready = world.main_first(lambda: _ready(cfg, settings, source, resumed, request.console))
    validation = _validation(ready.val, settings)
    summary = split_lines(ready.data, ready.val, cfg.get("data.test")) if world.main else []
    meta = _meta(cfg, ready)
    if resumed is not None and world.main:
        warn_of_changed_data(resumed, meta["data"])
    return Run(
        cfg, settings, folder, ready.model, ready.data, validation, meta, ready.initial, request, summary=summary
    )


def _validation(val: AnyDataset | None, settings: Settings) -> Validation | None:
    """Return the evaluation on the validation split, if there is one; check ``best_metric``."""
    if val is None:
        return None
    validation = Validation(val, settings.loader, settings.evaluation)
    settings.training.best_of(dict.fromkeys(validation.names, 0.0))
    return validation


class Ready(NamedTuple):
    """A detector with initial weights, the source of these, and its training and validation data."""

    model: Any
    initial: LoadedWeights
    data: AnyDataset
    val: AnyDataset | None


def _ready(
    cfg: Config, settings: Settings, source: WeightsSource, resumed: Path | None, console: Console | None
) -> Ready:
    """Build the data and the detector with its initial weights."""
    data, val = _datasets(cfg, settings.training.seed, resumed)
    seed_all(settings.training.seed)
    detector = build_detector(cfg["model"], data.class_names)
    require_masks(cfg, detector, data)
    initial = initial_weights(detector, source, settings.match)
    if console and initial.renewed:
        console.print(class_match_table(initial.classes, initial.source))
    return Ready(distilled(detector, settings.distill) if settings.distill else detector, initial, data, val)


def _datasets(cfg: Config, seed: int, resumed: Path | None) -> tuple[AnyDataset, AnyDataset | None]:
    """Build the training and validation data and check them."""
    data = build_dataset(cfg["data"]["train"], seed, path="data.train")
    if data.index.crowd.all():
        raise DataError(f"{data.index.path}: has no object to train on")
    if resumed is not None:
        refuse_changed_classes(resumed, data.class_names, data.category_ids, data.index.path, _NEW_RUN)
    check_class_count(cfg, data)
    val = None
    if cfg.get("data.val"):
        val = build_dataset(cfg["data"]["val"], seed, data.class_names, path="data.val")
    check_images(data, val)
    if val is not None:
        check_has_objects(val, "metrics are -1, and best.pt contains the last weights")
    log_problems(data, val)
    return data, val


def _meta(cfg: Config, ready: Ready) -> dict[str, Any]:
    """Return the ``meta`` section of checkpoints."""
    found = (cfg.get(f"data.{part}.transforms") for part in ("val", "test", "train"))
    steps: list[dict[str, Any]] = next((one for one in found if one), [])
    resize = next((s for s in steps if s["type"] == "Resize"), {"short": 800, "long": 1333})
    short = resize.get("short", 800)
    splits = {"train": ready.data, "val": ready.val}
    return {
        "class_names": list(ready.data.class_names),
        "category_ids": list(ready.data.category_ids),
        "data": {name: index_fingerprint(split.index) for name, split in splits.items() if split is not None},
        "input": {"short": short if isinstance(short, int) else max(short), "long": resize.get("long", 1333)},
        "weights_source": ready.initial.source,
        "weights_license": ready.initial.license,
        "classes_from": ready.initial.classes,
        "versions": versions(),
        "imports": needed_imports(cfg.data),
    }
