"""``tldet train``: from a config to a measured detector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet import checkpoint
from tldet.config import Config, parse_options
from tldet.data.coco import CocoDataset
from tldet.engine.log import LOG_NAME, read_log
from tldet.engine.memory import keep_freed_memory
from tldet.engine.settings import TrainSettings
from tldet.engine.state import TrainResult, seed_all
from tldet.engine.validation import best_of
from tldet.engine.verdict import judge
from tldet.errors import CheckpointError, DataError
from tldet.evaluation.report import CocoResult
from tldet.html import html_table
from tldet.models.detector import build_detector
from tldet.transfer.class_match import shown as class_table
from tldet.transfer.provenance import outline
from tldet.transfer.teacher import distilled
from tldet.wording import counted
from tldet.workflows.assemble import assemble
from tldet.workflows.batch_size import settled_batch_size
from tldet.workflows.data_summary import log_splits
from tldet.workflows.parts import (
    Settings,
    Validation,
    build_dataset,
    check_class_count,
    check_images,
    check_masks,
    check_objects,
    checked_settings,
    set_bad_image,
    versions,
)
from tldet.workflows.recipes import load_config
from tldet.workflows.run_folder import RunFiles, start_over
from tldet.workflows.runs import using
from tldet.workflows.same_run import refuse_changed_classes, refuse_other_weights
from tldet.workflows.start import Started, start_weights
from tldet.workflows.transfer_options import TransferOptions

if TYPE_CHECKING:
    from rich.console import Console

    from tldet.engine.trainer import Trainer


NEW_RUN = (
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


def train(
    config: str | Path | Config,
    *,
    work_dir: str | Path | None = None,
    resume: bool = False,
    init_from: str | Path | None = None,
    transfer: TransferOptions | None = None,
    on_bad_image: str | None = None,
    options: Sequence[str] = (),
    console: Console | None = None,
    backbone_weights: bool = True,
    files: RunFiles | None = None,
) -> Outcome:
    """Train by a config, distributed if started by ``torchrun``.

    Args:
        config: a file, the name of a shipped config, or a loaded config.
        work_dir: directory of checkpoints and log; ``runs/NAME`` by default.
        resume: resume from the newest readable checkpoint there; start the run if there is no checkpoint yet.
        init_from: a tldet checkpoint with the initial weights.
        transfer: transfer options to write into the config.
        on_bad_image: "error" or "skip" for all splits; None leaves it to the config.
        options: config overrides ``a.b=c``.
        console: shows progress and metrics; silent when None.
        backbone_weights: load the backbone's pretrained weights.
        files: writes the run's config when training begins.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    keep_freed_memory()
    cfg = config if isinstance(config, Config) else load_config(config, parse_options(options))
    folder = Path(work_dir) if work_dir else Path("runs") / Path(cfg.source).stem
    with using(folder) as world:
        if transfer:
            checked_settings(cfg)  # before anything is written into it
            transfer.write(cfg.data)
        set_bad_image(cfg.data, on_bad_image)
        settings = checked_settings(cfg)
        resume = resume and world.first(lambda: _has_checkpoint(folder, init_from))
        if settings.loader.batch_size == "auto":
            size = world.first(lambda: settled_batch_size(cfg, settings, folder if resume else None))
            cfg.data["data"]["loader"]["batch_size"] = size
            settings = checked_settings(cfg)
        source = cfg.get("model.weights.source")
        ways = {"resume": resume, "init_from": init_from, "start": source, "pretrained": backbone_weights}
        begin = partial(start_weights, match=settings.match, **ways)
        detector, started, data, val = world.main_first(
            lambda: _ready(cfg, settings, begin, folder if resume else None, console)
        )
        validation = Validation(val, settings.loader, settings.evaluation) if val else None
        if validation:
            best_of(dict.fromkeys(validation.names, 0.0), settings.training)  # a wrong name is said before training
        if world.main:
            log_splits(data, val, cfg.get("data.test"))
        meta = _meta(cfg, data, started)
        trainer = assemble(cfg, settings, folder, detector, data, validation, meta, started, console)
        if validation:
            trainer.hooks.insert(0, _ResultKeeper(validation))
        with files.applied(trainer) if files else nullcontext():
            result = trainer.run(resume=resume)
        outcome = Outcome(folder, result, None)
        outcome.result = world.first(lambda: kept_result(outcome.checkpoint))
    _report(outcome, settings.training, validation, console)
    return outcome


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
    kept = None if path is None else outline(path)["meta"]["trained"].get("result")
    return None if kept is None else CocoResult.of(kept)


def _ready(
    cfg: Config, settings: Settings, begin: Callable[[Any], Started], resumed: Path | None, console: Console | None
) -> tuple[Any, Started, CocoDataset, CocoDataset | None]:
    """Return the detector with its initial weights, their source, and the training and validation data."""
    seed = settings.training.seed
    data = build_dataset(cfg["data"]["train"], seed, path="data.train")
    if data.index.crowd.all():
        raise DataError(f"{data.index.path}: holds no object to learn from")
    if resumed is not None:
        refuse_changed_classes(resumed, data.class_names, data.category_ids, data.index.path, NEW_RUN)
    check_class_count(cfg, data)
    val = None
    if cfg.get("data.val"):
        val = build_dataset(cfg["data"]["val"], seed, data.class_names, path="data.val")
    check_images(data, val)
    if val is not None:
        check_objects(val, "metrics are -1, and best.pt gets the last weights")
    seed_all(seed)
    detector = build_detector(cfg["model"], data.class_names)
    check_masks(cfg, detector, data)
    started = begin(detector)
    if console and started.renewed:
        console.print(class_table(started.classes, started.source))
    return distilled(detector, settings.distill) if settings.distill else detector, started, data, val


def _meta(cfg: Config, data: CocoDataset, started: Started) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    found = (cfg.get(f"data.{part}.transforms") for part in ("val", "test", "train"))
    steps: list[dict[str, Any]] = next((one for one in found if one), [])
    resize = next((s for s in steps if s["type"] == "Resize"), {"short": 800, "long": 1333})
    short = resize.get("short", 800)
    return {
        "class_names": list(data.class_names),
        "category_ids": list(data.category_ids),
        "input": {"short": short if isinstance(short, int) else max(short), "long": resize.get("long", 1333)},
        "weights_source": started.source,
        "classes_from": started.classes,
        "versions": versions(),
    }


def _report(outcome: Outcome, training: TrainSettings, validation: Validation | None, console: Console | None) -> None:
    if console is None:
        return
    records, t = read_log(outcome.work_dir / LOG_NAME), outcome.train
    if outcome.result is not None and outcome.checkpoint is not None:
        found = outline(outcome.checkpoint)
        trained, val = found["meta"]["trained"], found["config"]["data"]["val"]["annotations"]
        where = f"step {trained['steps']} of {t.step}, evaluated on {val} in {trained['precision']}"
        console.print(f"{outcome.checkpoint}: {where}", markup=False, highlight=False)
        console.print(*outcome.result.tables(), sep="\n")
    if validation and training.validate_every is not None:  # one validation is no curve
        console.print(judge(records, training.best_metric).text, markup=False, highlight=False)
    if stopped := early(t, training):
        console.print(stopped, markup=False, highlight=False)
    rate = f", {t.seconds / t.step:.2f} s/step" if t.step else ""
    peak = next((r["time"].get("peak_mb") for r in reversed(records) if r["type"] == "train"), None)
    most = f", peak memory {peak:,.0f} MB" if peak else ""
    steps = counted(t.step, "step")
    console.print(f"{steps} in {t.seconds:.0f} s of training{rate}{most}; checkpoint: {outcome.checkpoint}")


def early(result: TrainResult, training: TrainSettings) -> str:
    """A line on a run that ended before its length; empty for every other one."""
    if result.reason == "finished":
        return ""
    without = counted(training.patience or 0, "validation")
    why = f"no gain in {without}" if result.reason == "no gain" else result.reason
    return f"stopped after step {result.step}, before its end: {why}"
