"""Data, detector, initial weights and evaluation of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tldet import checkpoint
from tldet.components import needed_imports
from tldet.config import Config, override
from tldet.engine.distributed import World
from tldet.errors import DataError
from tldet.models.detector import build_detector
from tldet.system.determinism import seed_all
from tldet.transfer.class_match import class_table
from tldet.transfer.teacher import distilled
from tldet.workflows.requests import RunRequest
from tldet.workflows.training.assemble import Run
from tldet.workflows.training.batch_size import resolve_batch_size
from tldet.workflows.training.data_summary import log_splits
from tldet.workflows.training.datasets import (
    AnyDataset,
    build_dataset,
    check_class_count,
    check_images,
    check_masks,
    check_objects,
)
from tldet.workflows.training.initial_weights import LoadedWeights, WeightsSource, initial_weights
from tldet.workflows.training.meta import versions
from tldet.workflows.training.resume_checks import refuse_changed_classes, refuse_other_weights
from tldet.workflows.training.run_folder import start_over
from tldet.workflows.training.schema import Settings, checked_settings
from tldet.workflows.training.validation import Validation

if TYPE_CHECKING:
    from rich.console import Console

_NEW_RUN = (
    "start a new run from its weights: --init-from {weights} with another --out (--work-dir for `tldet train`) and the "
    "same --model, which copies classifier weights by class name"
)


def prepare_run(
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
    if world.main:
        log_splits(ready.data, ready.val, cfg.get("data.test"))
    return Run(cfg, settings, folder, ready.model, ready.data, validation, _meta(cfg, ready), ready.initial, request)


def _validation(val: AnyDataset | None, settings: Settings) -> Validation | None:
    """Return the evaluation on the validation split, if there is one; check ``best_metric``."""
    if val is None:
        return None
    validation = Validation(val, settings.loader, settings.evaluation)
    settings.training.best_of(dict.fromkeys(validation.names, 0.0))
    return validation


def has_checkpoint(folder: Path, init_from: str | Path | None) -> bool:
    """Return True if there is a run to resume; log a start otherwise."""
    if not checkpoint.steps_in(folder):
        start_over(folder)
        return False
    refuse_other_weights(folder, init_from)
    return True


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
    check_masks(cfg, detector, data)
    initial = initial_weights(detector, source, settings.match)
    if console and initial.renewed:
        console.print(class_table(initial.classes, initial.source))
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
        check_objects(val, "metrics are -1, and best.pt contains the last weights")
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
        "weights_source": ready.initial.source,
        "classes_from": ready.initial.classes,
        "versions": versions(),
        "imports": needed_imports(cfg.data),
    }
