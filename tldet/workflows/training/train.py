"""``tldet train``: from a config to a measured detector."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tldet import checkpoint
from tldet.components import needed_imports
from tldet.config import Config, override, parse_options
from tldet.engine.checkpointing import best_of
from tldet.engine.distributed import World
from tldet.engine.state import TrainResult, seed_all
from tldet.errors import CheckpointError, DataError
from tldet.evaluation.report import CocoResult
from tldet.models.detector import build_detector
from tldet.plugins import import_named
from tldet.text import counted, html_table
from tldet.transfer.class_match import class_table as class_table
from tldet.transfer.provenance import checkpoint_outline
from tldet.transfer.teacher import distilled
from tldet.workflows.training.assemble import Run, assemble
from tldet.workflows.training.batch_size import settled_batch_size
from tldet.workflows.training.data_summary import log_splits
from tldet.workflows.training.initial_weights import Started, WeightsSource, initial_weights
from tldet.workflows.training.options import Request, takes
from tldet.workflows.training.parts import (
    AnyDataset,
    Settings,
    Validation,
    build_dataset,
    check_class_count,
    check_images,
    check_masks,
    check_objects,
    checked_settings,
    versions,
    with_bad_image,
)
from tldet.workflows.training.recipes import load_config
from tldet.workflows.training.report import report
from tldet.workflows.training.request import TrainRequest
from tldet.workflows.training.resume_checks import refuse_changed_classes, refuse_other_weights
from tldet.workflows.training.run_config import using
from tldet.workflows.training.run_folder import RunFiles, start_over

if TYPE_CHECKING:
    from rich.console import Console

    from tldet.engine.trainer import Trainer


_NEW_RUN = (
    "start a new run from its weights: --init-from {weights} with another --out (--work-dir for `tldet train`) and the "
    "same --model, which copies classifier weights by class name"
)


@dataclass(repr=False)
class Outcome:
    """What training left.

    Attributes:
        work_dir: the run's folder.
        train: steps, seconds, checkpoints.
        result: COCO metrics of ``checkpoint`` on the validation split; None if it was not evaluated.
    """

    work_dir: Path
    train: TrainResult
    result: CocoResult | None

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to use: ``best.pt``, or without validation the last checkpoint."""
        return self.train.best_checkpoint or self.train.checkpoint

    def trained(self) -> Path:
        """The checkpoint to use.

        Raises:
            CheckpointError: there is none, its file was removed.
        """
        if self.checkpoint is None:
            raise CheckpointError(f"{self.work_dir}: training left no checkpoint")
        return self.checkpoint

    def __repr__(self) -> str:
        result = "not evaluated" if self.result is None else repr(self.result)
        return f"Outcome({counted(self.train.step, 'step')}, checkpoint {str(self.checkpoint)!r}, {result})"

    def _repr_html_(self) -> str:
        rows = {
            "checkpoint": self.checkpoint,
            "steps": self.train.step,
            "training time": f"{self.train.seconds:.0f} s",
            "end": self.train.reason,
        }
        return html_table("training", ("", ""), rows.items()) + (self.result._repr_html_() if self.result else "")


@takes(TrainRequest)
def train(request: TrainRequest) -> Outcome:
    """Train by a config, distributed if started by ``torchrun``.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    cfg = loaded(request)
    folder = Path(request.work_dir) if request.work_dir else Path("runs") / Path(cfg.source).stem
    return run_training(cfg, request, folder, resume=request.resume, init_from=request.init_from)


def loaded(request: TrainRequest) -> Config:
    """Return the config of a request, with its options.

    Raises:
        ConfigError: the config or an option is wrong.
    """
    options = parse_options(request.overrides())
    if isinstance(request.config, Config):
        cfg = override(request.config, options)
    else:
        cfg = load_config(request.config, options)
    if request.class_aliases is None and not request.fold_names and request.on_bad_image is None:
        return cfg
    checked_settings(cfg)  # sections are sections, before options are written into them
    return replace(cfg, data=with_bad_image(request.written(cfg.data), request.on_bad_image))


def run_training(
    cfg: Config,
    request: Request,
    folder: Path,
    *,
    resume: bool = False,
    init_from: str | Path | None = None,
    files: RunFiles | None = None,
) -> Outcome:
    """Train by a loaded config.

    Args:
        cfg: the config.
        request: shows progress on its console, and brings callbacks.
        folder: output directory.
        resume: resume from the newest readable checkpoint there; start the run if there is no checkpoint yet.
        init_from: a tldet checkpoint with the initial weights.
        files: writes the run's config when training begins.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    import_named(cfg.get("imports"), cfg.origin("imports"))
    with using(folder) as world:
        settings = checked_settings(cfg)
        resume = resume and world.first(lambda: _has_checkpoint(folder, init_from))
        source = WeightsSource(resume=resume, init_from=init_from, detector=cfg.get("model.weights.source"))
        run = _run(cfg, settings, request, folder, source, world)
        trainer = assemble(run)
        if isinstance(run.validation, Validation):
            trainer.hooks.insert(0, _ResultKeeper(run.validation))
        with files.applied(trainer) if files else nullcontext():
            result = trainer.run(resume=resume)
        outcome = Outcome(folder, result, None)
        outcome.result = world.first(lambda: kept_result(outcome.checkpoint))
    if request.console is not None:
        report(outcome, settings.training, run.validation, request.console)
    return outcome


def _run(cfg: Config, settings: Settings, request: Request, folder: Path, source: WeightsSource, world: World) -> Run:
    """Build everything that the trainer needs: batch size, data, the detector with its initial weights, evaluation."""
    resumed = folder if source.resume else None
    if settings.loader.batch_size == "auto":
        size = world.first(lambda: settled_batch_size(cfg, settings, resumed))
        cfg = override(cfg, {"data.loader.batch_size": size})
        settings = checked_settings(cfg)
    ready = world.main_first(lambda: _ready(cfg, settings, source, resumed, request.console))
    validation = _validation(ready.val, settings)
    if world.main:
        log_splits(ready.data, ready.val, cfg.get("data.test"))
    return Run(cfg, settings, folder, ready.model, ready.data, validation, _meta(cfg, ready), ready.started, request)


def _validation(val: AnyDataset | None, settings: Settings) -> Validation | None:
    """Return the evaluation on the validation split, if there is one; a wrong ``best_metric`` is an error."""
    if val is None:
        return None
    validation = Validation(val, settings.loader, settings.evaluation)
    best_of(dict.fromkeys(validation.names, 0.0), settings.training)
    return validation


def _has_checkpoint(folder: Path, init_from: str | Path | None) -> bool:
    """Return True if there is a run to resume; log that it is started otherwise."""
    if not checkpoint.steps_in(folder):
        start_over(folder)
        return False
    refuse_other_weights(folder, init_from)
    return True


class _ResultKeeper:
    """Hook that stores the COCO result in the checkpoint of weights that were just evaluated."""

    def __init__(self, validation: Validation) -> None:
        self.validation = validation

    def before_save_checkpoint(self, runner: Trainer, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Add ``meta.trained.result``."""
        if self.validation.result is not None and checkpoint["meta"]["trained"]["metrics"]:
            checkpoint["meta"]["trained"]["result"] = asdict(self.validation.result)


def kept_result(path: Path | None) -> CocoResult | None:
    """Read the COCO result stored in a checkpoint; None if its weights were not evaluated."""
    kept = None if path is None else checkpoint_outline(path)["meta"]["trained"].get("result")
    return None if kept is None else CocoResult.of(kept)


class Ready(NamedTuple):
    """A detector with its initial weights, where these came from, and its training and validation data."""

    model: Any
    started: Started
    data: AnyDataset
    val: AnyDataset | None


def _ready(
    cfg: Config, settings: Settings, source: WeightsSource, resumed: Path | None, console: Console | None
) -> Ready:
    """Build the data and the detector, with its initial weights."""
    data, val = _datasets(cfg, settings.training.seed, resumed)
    seed_all(settings.training.seed)
    detector = build_detector(cfg["model"], data.class_names)
    check_masks(cfg, detector, data)
    started = initial_weights(detector, source, settings.match)
    if console and started.renewed:
        console.print(class_table(started.classes, started.source))
    return Ready(distilled(detector, settings.distill) if settings.distill else detector, started, data, val)


def _datasets(cfg: Config, seed: int, resumed: Path | None) -> tuple[AnyDataset, AnyDataset | None]:
    """Build the training and validation data and check them."""
    data = build_dataset(cfg["data"]["train"], seed, path="data.train")
    if data.index.crowd.all():
        raise DataError(f"{data.index.path}: holds no object to learn from")
    if resumed is not None:
        refuse_changed_classes(resumed, data.class_names, data.category_ids, data.index.path, _NEW_RUN)
    check_class_count(cfg, data)
    val = None
    if cfg.get("data.val"):
        val = build_dataset(cfg["data"]["val"], seed, data.class_names, path="data.val")
    check_images(data, val)
    if val is not None:
        check_objects(val, "metrics are -1, and best.pt gets the last weights")
    return data, val


def _meta(cfg: Config, ready: Ready) -> dict[str, Any]:
    """Return the ``meta`` section of checkpoints."""
    found = (cfg.get(f"data.{part}.transforms") for part in ("val", "test", "train"))
    steps: list[dict[str, Any]] = next((one for one in found if one), [])
    resize = next((s for s in steps if s["type"] == "Resize"), {"short": 800, "long": 1333})
    short = resize.get("short", 800)
    return {
        "class_names": list(ready.data.class_names),
        "category_ids": list(ready.data.category_ids),
        "input": {"short": short if isinstance(short, int) else max(short), "long": resize.get("long", 1333)},
        "weights_source": ready.started.source,
        "classes_from": ready.started.classes,
        "versions": versions(),
        "imports": needed_imports(cfg.data),
    }
