"""Folder of a run: config and arguments, written when training begins and read on resume."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tldet import checkpoint
from tldet.config import ComponentType, Config, parse_options, read_config
from tldet.engine.logging import LOG_NAME
from tldet.errors import TrainingError
from tldet.plugins import import_named
from tldet.system.output import write_bytes, write_text
from tldet.workflows.training.resume_checks import ARGUMENTS_NAME, plain, refuse_other_arguments, refuse_other_weights
from tldet.workflows.training.schema import checked_settings

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

log = logging.getLogger(__name__)
CONFIG_NAME = "config.py"
BEST_NAME = "best.pt"


def refuse_earlier_run(folder: Path) -> None:
    """Reject a new run in the folder of an earlier run.

    Raises:
        TrainingError: the folder has checkpoints.
    """
    if checkpoint.steps_in(folder) or (folder / BEST_NAME).exists():
        raise TrainingError(f"{folder} contains an earlier run; resume it with --resume, or choose another --out")


class RunFiles:
    """Hook that writes the config and arguments of a run when training begins.

    If training fails before the first checkpoint, earlier files are restored, and new files are removed.

    Args:
        folder: folder of the run.
        config: text of the run's config.
        note: comment at the top, in which ``{path}`` and ``{folder}`` are filled in.
        arguments: arguments of the run; None keeps the existing record.
    """

    def __init__(self, folder: Path, config: str, note: str, arguments: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        path = folder / CONFIG_NAME
        self.texts = {path: note.format(path=path, folder=folder) + config}
        if arguments is not None:
            self.texts[folder / ARGUMENTS_NAME] = json.dumps(plain(arguments), indent=1) + "\n"
        self._before: dict[Path, bytes | None] = {}
        self._new = False  # the folder did not exist

    @contextmanager
    def applied(self, trainer: Trainer) -> Iterator[None]:
        """Write the files when ``trainer`` has prepared the folder; undo this if training fails before a checkpoint."""
        trainer.hooks.insert(0, self)
        saved, self._new = self._saved(), not self.folder.is_dir()
        try:
            yield
        except Exception:
            if self._saved() == saved:
                self._undo()
            raise

    def before_train(self, runner: Trainer) -> None:
        """Write the files.

        Raises:
            OutputError: the folder cannot be written.
        """
        if not runner.world.main:
            return
        for path, text in self.texts.items():
            self._before[path] = path.read_bytes() if path.is_file() else None
            write_text(path, text, sync=True)

    def _saved(self) -> list[Path]:
        best = self.folder / BEST_NAME
        return [*checkpoint.steps_in(self.folder)[:1], *([best] if best.exists() else [])]

    def _undo(self) -> None:
        for path, content in self._before.items():
            if content is None:
                path.unlink(missing_ok=True)
            else:
                write_bytes(path, content)
        log_path = self.folder / LOG_NAME
        if log_path.is_file() and not log_path.stat().st_size:
            log_path.unlink()
        if self._new:
            _remove_empty(self.folder)


def _remove_empty(*folders: Path) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()  # fails unless it is empty


@contextmanager
def removed_on_failure(folder: Path, *names: str) -> Iterator[None]:
    """Remove the files of a failed start unless a checkpoint was saved.

    Args:
        folder: folder of the run.
        names: files that a new run writes; existing ones are kept.
    """
    new = [folder / name for name in names if not (folder / name).exists()]
    folders = [path for path in dict.fromkeys([*(file.parent for file in new), folder]) if not path.is_dir()]
    try:
        yield
    except Exception:
        if not checkpoint.steps_in(folder) and not (folder / BEST_NAME).exists():
            for path in new:
                with suppress(OSError):  # of a folder that cannot be written
                    path.unlink()
            _remove_empty(*folders)
        raise


def resumes(folder: Path, *, startable: bool) -> bool:
    """Decide if ``--resume`` resumes a run or starts one; log that a new run starts.

    Args:
        folder: folder of the run.
        startable: the arguments are sufficient to start a run.

    Returns:
        True to use the config in the folder (with or without a checkpoint), False to start by the arguments.

    Raises:
        TrainingError: there is no run, and the arguments are not sufficient to start one.
    """
    if checkpoint.steps_in(folder):
        return True
    if not startable and not (folder / CONFIG_NAME).is_file():
        raise TrainingError(f"nothing to resume: {folder} contains no run; to start one, use --data")
    start_over(folder)
    return not startable


def has_checkpoint(folder: Path, init_from: str | Path | None) -> bool:
    """Return True if there is a run to resume; log that a new run starts otherwise."""
    if not checkpoint.steps_in(folder):
        start_over(folder)
        return False
    refuse_other_weights(folder, init_from)
    return True


def start_over(folder: Path) -> None:
    """Log that ``--resume`` starts a run; rename a ``best.pt`` of an earlier run without step checkpoints."""
    log.info("--resume: no checkpoint in %s yet; starting the run", folder)
    best = folder / BEST_NAME
    if best.exists():
        spare = next(path for n in count(1) if not (path := folder / f"best_before_{n}.pt").exists())
        best.rename(spare)
        log.warning("%s: belongs to a run without step checkpoints; renamed to %s", best, spare.name)


class StoredRun(NamedTuple):
    """A run to resume: config with options, files to write, and whether there is a checkpoint."""

    config: Config
    files: RunFiles | None
    resume: bool


def read_run(
    folder: Path, given: Mapping[str, object], options: Sequence[str], schema: Mapping[str, ComponentType], note: str
) -> StoredRun:
    """Read the run in a folder. Options are written to its config with the next checkpoint.

    Args:
        folder: folder of the run.
        given: arguments by name; those that are not None must equal those with which the run was started.
        options: config options ``a.b=c``.
        schema: allowed keys of the config.
        note: see :class:`RunFiles`.

    Raises:
        TrainingError: the folder has no config, or the run was started with other arguments.
        ConfigError: an option is wrong.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise TrainingError(
            f"{folder}: contains checkpoints but no {CONFIG_NAME}; resume with `tldet train CONFIG --work-dir {folder} "
            "--resume`"
        )
    refuse_other_arguments(folder, given)
    config = read_config(path, parse_options(options))
    import_named(config.get("imports"), config.origin("imports"))
    checked_settings(config, schema)
    files = RunFiles(folder, config.dump(), note) if options else None
    return StoredRun(config, files, bool(checkpoint.steps_in(folder)))
