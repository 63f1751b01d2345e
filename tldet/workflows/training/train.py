"""``tldet train``: train by a config, evaluate the best checkpoint."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from tldet.config import Config, override, parse_options
from tldet.plugins import import_named
from tldet.workflows.requests import RunRequest, takes
from tldet.workflows.training.assemble import assemble
from tldet.workflows.training.initial_weights import WeightsSource
from tldet.workflows.training.outcome import Outcome, ResultKeeper, stored_result
from tldet.workflows.training.prepare import has_checkpoint, prepare_run
from tldet.workflows.training.recipes import load_config
from tldet.workflows.training.report import report
from tldet.workflows.training.request import TrainRequest
from tldet.workflows.training.run_config import using
from tldet.workflows.training.run_folder import RunFiles
from tldet.workflows.training.schema import checked_settings, with_bad_image
from tldet.workflows.training.validation import Validation


@takes(TrainRequest)
def train(request: TrainRequest) -> Outcome:
    """Train by a config file; distributed if started by ``torchrun``.

    Raises:
        TldetError: the config, the data or a checkpoint is wrong.
    """
    cfg = loaded(request)
    folder = Path(request.work_dir) if request.work_dir else Path("runs") / Path(cfg.source).stem
    return run_training(cfg, request, folder, resume=request.resume, init_from=request.init_from)


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
) -> Outcome:
    """Train by a loaded config.

    Args:
        cfg: the config.
        request: provides console and callbacks.
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
        resume = resume and world.first(lambda: has_checkpoint(folder, init_from))
        source = WeightsSource(resume=resume, init_from=init_from, detector=cfg.get("model.weights.source"))
        run = prepare_run(cfg, settings, request, folder, source, world)
        trainer = assemble(run)
        if isinstance(run.validation, Validation):
            trainer.hooks.insert(0, ResultKeeper(run.validation))
        with files.applied(trainer) if files else nullcontext():
            result = trainer.run(resume=resume)
        outcome = Outcome(folder, result, None)
        outcome.result = world.first(lambda: stored_result(outcome.checkpoint))
    if request.console is not None:
        report(outcome, settings.training, run.validation, request.console)
    return outcome
