"""``tldet extend``: add classes to a detector without forgetting the existing ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.components import require_components
from tldet.config import Config, parse_options
from tldet.errors import TrainingError
from tldet.system.locks import locked
from tldet.system.progress import progress_bars
from tldet.text import counted
from tldet.transfer.class_match import MatchSettings, few, read_class_aliases
from tldet.transfer.restore import restore
from tldet.workflows.command_requests import TestRequest
from tldet.workflows.evaluation_data import EvaluationData
from tldet.workflows.extend.data import TRAIN, VAL, ExtendData, prepare_data
from tldet.workflows.extend.inputs import DATA, WRITTEN, find_input
from tldet.workflows.extend.report import EXTEND_REPORT, NO_GROUND_TRUTH, ClassMetrics, ExtendReport, read_report
from tldet.workflows.extend.request import ExtendRequest
from tldet.workflows.extend.settings import extended_config, trained_config
from tldet.workflows.requests import takes
from tldet.workflows.test import evaluate_on
from tldet.workflows.training.choose import choose_length, given_batch
from tldet.workflows.training.finetune import SPLIT
from tldet.workflows.training.outcome import Outcome
from tldet.workflows.training.run_config import final_config
from tldet.workflows.training.run_folder import (
    RunFiles,
    StoredRun,
    read_run,
    refuse_earlier_run,
    removed_on_failure,
    resumes,
)
from tldet.workflows.training.schema import SCHEMA, checked_settings, with_bad_image
from tldet.workflows.training.train import run_training

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
_NOTE = "# Written by `tldet extend`; resume with `tldet extend --out {folder} --resume`.\n"
# Files that a new run writes to its folder.
_STARTED = (*(f"{DATA}/{name}" for name in (TRAIN, VAL, *WRITTEN)), EXTEND_REPORT, *SPLIT)


@takes(ExtendRequest)
def extend(request: ExtendRequest) -> ExtendReport:
    """Add the classes of new data to a detector; evaluate old and new classes before and after.

    Raises:
        TldetError: the checkpoint, the data or a value is wrong.
    """
    folder = request.folder
    with locked(folder):
        if request.resume and resumes(folder, startable=request.checkpoint is not None):
            return _resumed(request, read_run(folder, request.given(), request.overrides(), SCHEMA, _NOTE))
        if request.checkpoint is None:
            raise TrainingError(
                "specify the checkpoint of a detector to extend, or --resume to resume the run in --out"
            )
        refuse_earlier_run(folder)
        path = Path(request.checkpoint)
        _, state = restore(path)
        before = trained_config(path, state)
        with removed_on_failure(folder, *_STARTED):
            data = _prepared(request, path, before, state)
            used = _config(request, path, state, before, data)
            report = ExtendReport(data.old, data.new, _before(path, data, request.on_bad_image, _device(used)))
            report.save(folder)
            files = RunFiles(folder, used.dump(), _NOTE, request.record())
            outcome = run_training(used, request, folder, files=files, report=request.report)
        return _finish(report, outcome, used, request.console)


def _config(
    request: ExtendRequest, path: Path, state: Mapping[str, Any], before: Mapping[str, Any], data: ExtendData
) -> Config:
    """Return the checked config of a new run."""
    given = given_batch(parse_options(request.overrides()))
    batch = given or (before.get("data") or {}).get("loader", {}).get("batch_size", 1)
    length, why = choose_length(data.images, batch, request.length)
    old, new = counted(len(data.old), "old class", "old classes"), counted(len(data.new), "new class", "new classes")
    log.info("%s (%s), %s (%s)", old, few(data.old), new, few(data.new))
    log.info("%s", why)
    config = extended_config(path, state, data, length, request.seed_value, batch, distill=request.distill)
    used = final_config(with_bad_image(config, request.on_bad_image), request.overrides(), str(path))
    checked_settings(used)  # a wrong option is reported before anything is evaluated
    return used


def _device(config: Config) -> str:
    return str(config.get("training.device", "auto"))


def _old(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the category id of each class of a checkpoint."""
    meta = state["meta"]
    return dict(zip(meta["class_names"], meta["category_ids"], strict=True))


def _prepared(request: ExtendRequest, path: Path, config: Mapping[str, Any], state: Mapping[str, Any]) -> ExtendData:
    """Write the data of the run to its folder."""
    aliases = read_class_aliases(request.class_aliases) if request.class_aliases else {}
    match = MatchSettings(aliases, tuple(request.fold_names))
    folder = request.folder / DATA
    given = find_input(request, config, lambda: require_components(path, state, "data"))
    with progress_bars(request.console) as progress:
        track = partial(progress.track, description="comparing images")
        skip = request.on_bad_image == "skip"
        return prepare_data(given, _old(state), match, folder, track, missing=skip)


def _before(path: Path, data: ExtendData, on_bad_image: str | None, device: str) -> ClassMetrics:
    """Return the metrics of the original detector on its own classes."""
    log.info("evaluating the original detector")
    given = EvaluationData(data.val.annotations, data.val.images, on_bad_image=on_bad_image, sources=data.sources)
    result = evaluate_on(TestRequest(path, device=device), given)
    columns = (result.per_class, result.per_class_ap50)
    metrics = ClassMetrics(*({name: one.get(name, NO_GROUND_TRUTH) for name in data.old} for one in columns))
    if lost := [name for name, value in metrics.AP.items() if value == NO_GROUND_TRUTH]:
        text = "%s: no image annotated for %s; their AP cannot be computed without --old-val JSON"
        log.warning(text, data.val.annotations, few(lost))
    return metrics


def _resumed(request: ExtendRequest, stored: StoredRun) -> ExtendReport:
    report = read_report(request.folder)
    folder, resume = request.folder, stored.resume
    outcome = run_training(stored.config, request, folder, resume=resume, files=stored.files, report=request.report)
    return _finish(report, outcome, stored.config, request.console)


def _finish(report: ExtendReport, outcome: Outcome, config: Config, console: Console | None) -> ExtendReport:
    """Evaluate the extended detector on the same data; save and print the report."""
    folder, path = outcome.work_dir, outcome.trained()
    log.info("evaluating %s", path)
    given = EvaluationData(folder / DATA / VAL, folder / DATA, sources=config.get("data.val.sources") or {})
    after = ClassMetrics.of(evaluate_on(TestRequest(path, device=_device(config)), given))
    report = replace(report, after=after, checkpoint=str(path))
    if console:
        console.print(report.table())
    report.save(folder)
    return report
