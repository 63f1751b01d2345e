"""``tldet extend``: further classes for a detector that keeps those it has."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.config import parse_options
from tldet.data.image_folders import find_images
from tldet.data.layouts import Split
from tldet.errors import TrainingError
from tldet.inputs import is_file, is_folder
from tldet.locks import locked
from tldet.transfer.class_match import Fold, MatchSettings, few, read_aliases
from tldet.transfer.restore import restore
from tldet.workflows.choose import choose_length, given_batch
from tldet.workflows.data_layout import resolve_layout
from tldet.workflows.extend.data import TRAIN, VAL, Given, Prepared, prepare
from tldet.workflows.extend.report import NOTHING, REPORT, ExtendReport, Measured, read_report
from tldet.workflows.extend.settings import extended_config, trained_config
from tldet.workflows.finetune import SPLIT
from tldet.workflows.parts import SCHEMA, checked_settings, set_bad_image
from tldet.workflows.run_folder import Kept, RunFiles, continues, kept_run, refuse_earlier_run, removed_on_failure
from tldet.workflows.runs import settled
from tldet.workflows.test import test
from tldet.workflows.train import Outcome, train

if TYPE_CHECKING:
    from rich.console import Console

log = logging.getLogger(__name__)
DATA = "data"  # in the run's folder
NOTE = "# Written by `tldet extend`; resume with `tldet extend --out {folder} --resume`.\n"
STARTED = (f"{DATA}/{TRAIN}", f"{DATA}/{VAL}", REPORT, *SPLIT)  # what a start writes into the run's folder


@dataclass(frozen=True)
class ExtendData:
    """What is learnt from and measured on, as it was asked for.

    Attributes:
        data: a folder in one of the usual layouts, with new classes.
        train_json: new pictures' annotations, instead of what ``data`` holds.
        val_json: annotations to measure on: new classes, and old ones where they are labelled.
        images: picture folder of both.
        replay: annotations of old pictures that are mixed in, with old classes labelled.
        replay_images: their folder; looked for around ``replay`` when None.
        old_val: annotations to measure old classes on, beside ``val_json``.
        old_val_images: their pictures' folder.
    """

    data: str | Path | None = None
    train_json: str | Path | None = None
    val_json: str | Path | None = None
    images: str | Path | None = None
    replay: str | Path | None = None
    replay_images: str | Path | None = None
    old_val: str | Path | None = None
    old_val_images: str | Path | None = None

    def given(self) -> dict[str, object]:
        """Each option's value, None where it was not given."""
        values = {name.removesuffix("_json").replace("_", "-"): value for name, value in vars(self).items()}
        return dict(values)


def extend(
    checkpoint: str | Path | None = None,
    wanted: ExtendData | None = None,
    *,
    out: str | Path,
    epochs: int | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    seed: int | None = None,
    distill: bool = True,
    class_aliases: str | Path | None = None,
    fold_names: Sequence[Fold] = (),
    resume: bool = False,
    on_bad_image: str | None = None,
    options: Sequence[str] = (),
    console: Console | None = None,
) -> ExtendReport:
    """Add the classes of new data to a detector; evaluate old and new classes before and after.

    Args:
        checkpoint: a tldet checkpoint of the old detector.
        wanted: the data.
        out: output directory: config, data, checkpoints, and the metrics as ``extend.json``.
        epochs: number of epochs.
        minutes: training time.
        steps: number of training steps; 0 evaluates and saves the initial weights.
        seed: random seed; 0 when None.
        distill: distill the old detector; False is plain fine-tuning, for comparison.
        class_aliases: a file that maps class names of the data to differently named old classes.
        fold_names: see :class:`~tldet.transfer.class_match.MatchSettings`.
        resume: resume the run in ``out`` with its config, changed only by ``options``; start it if there is no
            checkpoint yet. Other arguments may be given again, but must be those that the run was started with.
        on_bad_image: "error" (default) or "skip" for images that are missing, unreadable, truncated or of another size.
        options: config overrides ``a.b=c``.
        console: shows progress and metrics.

    Raises:
        TldetError: the checkpoint, the data or a value is wrong.
    """
    folder, wanted = Path(out), wanted or ExtendData()
    given = {"CKPT": checkpoint, **wanted.given(), "epochs": epochs, "minutes": minutes, "steps": steps}
    given |= {"seed": seed, "no-distill": None if distill else True, "class-aliases": class_aliases}
    given |= {"fold-names": fold_names or None, "on-bad-image": on_bad_image}
    with locked(folder):
        if resume and continues(folder, startable=checkpoint is not None):
            return _resumed(folder, kept_run(folder, given, options, SCHEMA, NOTE), console)
        if checkpoint is None:
            raise TrainingError("give the checkpoint of a detector to extend, or --resume to continue the run in --out")
        if (seed := seed or 0) < 0:
            raise TrainingError(f"--seed must be at least 0, not {seed}")
        refuse_earlier_run(folder)
        path = Path(checkpoint)
        match = MatchSettings(read_aliases(class_aliases) if class_aliases else {}, tuple(fold_names))
        _, state = restore(checkpoint)
        before_config, changed = trained_config(path, state), parse_options(options)
        batch = given_batch(changed) or (before_config.get("data") or {}).get("loader", {}).get("batch_size", 1)
        with removed_on_failure(folder, *STARTED):
            chosen, skip = _given(wanted, before_config, folder, seed), on_bad_image == "skip"
            data = _prepared(chosen, _old(state), match, folder, console, missing=skip)
            length, why = choose_length(data.pictures, batch, epochs, minutes, steps)
            for line in (f"{len(data.old)} old classes ({few(data.old)}), {len(data.new)} new ({few(data.new)})", why):
                log.info("%s", line)
            config = extended_config(path, state, data, length, seed, batch, distill=distill)
            set_bad_image(config, on_bad_image)
            used = settled(config, options, str(path))
            checked_settings(used)  # a wrong option is reported before anything is evaluated
            device = used.get("training.device", "auto")
            report = ExtendReport(data.old, data.new, _before(path, data, on_bad_image, device))
            report.save(folder)
            files = RunFiles(folder, used, NOTE, {**given, "seed": seed})
            outcome = train(used, work_dir=folder, console=console, files=files)
        return _finish(report, outcome, device, console)


def _old(state: Mapping[str, Any]) -> dict[str, int]:
    """Return the category id of each class of a checkpoint."""
    meta = state["meta"]
    return dict(zip(meta["class_names"], meta["category_ids"], strict=True))


def _prepared(
    given: Given, old: Mapping[str, int], match: MatchSettings, folder: Path, console: Console | None, *, missing: bool
) -> Prepared:
    from rich.progress import Progress

    with Progress(console=console, disable=console is None, transient=True) as progress:
        track = partial(progress.track, description="comparing pictures")
        return prepare(given, old, match, folder / DATA, track, missing=missing)


def _given(wanted: ExtendData, config: Mapping[str, Any], folder: Path, seed: int) -> Given:
    """The data sets that were asked for, and what the old detector was measured on where it is still there."""
    layout = resolve_layout(wanted.data, wanted.train_json, wanted.val_json, wanted.images, folder, seed)
    assert layout.val is not None
    replay, old_val = _split(wanted.replay, wanted.replay_images), _split(wanted.old_val, wanted.old_val_images)
    return Given(layout.train, replay, layout.val, old_val, _own(config.get("data") or {}))


def _split(annotations: str | Path | None, images: str | Path | None) -> Split | None:
    if annotations is None:
        return None
    path = Path(annotations)
    return Split(path, Path(images) if images is not None else find_images(path, path.parent))


def _own(data: Mapping[str, Any]) -> Split | None:
    for section in (data.get("test"), data.get("val")):
        if section and is_file(section.get("annotations", "")) and is_folder(section.get("images", "")):
            return Split(Path(section["annotations"]), Path(section["images"]))
    return None


def _before(path: Path, data: Prepared, on_bad_image: str | None, device: str) -> Measured:
    """Return the metrics of the old detector on its own classes."""
    log.info("evaluating the old detector")
    result = test(path, data=data.val.annotations, images=data.val.images, on_bad_image=on_bad_image, device=device)
    measured = Measured.of(result)
    found = Measured(*({name: one.get(name, NOTHING) for name in data.old} for one in (measured.AP, measured.AP50)))
    if lost := [name for name, value in found.AP.items() if value == NOTHING]:
        log.warning("%s: no picture to measure %s on; --old-val JSON gives some", data.val.annotations, few(lost))
    return found


def _resumed(folder: Path, kept: Kept, console: Console | None) -> ExtendReport:
    report = read_report(folder)
    outcome = train(kept.config, work_dir=folder, resume=kept.resume, console=console, files=kept.files)
    return _finish(report, outcome, kept.config.get("training.device", "auto"), console)


def _finish(report: ExtendReport, outcome: Outcome, device: str, console: Console | None) -> ExtendReport:
    """Evaluate the new detector as the old one was, save and show both."""
    folder, path = outcome.work_dir, outcome.trained()
    log.info("evaluating %s", path)
    after = Measured.of(test(path, data=folder / DATA / VAL, images=folder / DATA, device=device))
    report = replace(report, after=after, checkpoint=str(path))
    if console:
        console.print(report.table())
    report.save(folder)
    return report
