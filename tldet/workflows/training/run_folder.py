"""The folder of a run: its config and arguments, written when training begins, and resuming by them."""

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
from tldet.workflows.training.resume_checks import ARGUMENTS_NAME, plain, refuse_other_arguments
from tldet.workflows.training.schema import checked_settings

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer

log = logging.getLogger(__name__)
CONFIG_NAME = "config.py"
BEST_NAME = "best.pt"


def refuse_earlier_run(folder: Path) -> None:
    """Refuse to start a new run over an earlier one.

    Raises:
        TrainingError: the folder holds checkpoints.
    """
    if checkpoint.steps_in(folder) or (folder / BEST_NAME).exists():
        raise TrainingError(f"{folder} holds an earlier run: continue it with --resume, or choose another --out")


class RunFiles:
    """Hook that writes the config and arguments of a run when training begins.

    If training fails before it saves a checkpoint, the files become what they were before: a failed start leaves
    nothing behind.

    Args:
        folder: the run's folder.
        config: the config of the run.
        note: comment on top, in which ``{path}`` and ``{folder}`` are filled in.
        arguments: what the run was started with; None leaves the record as it is.
    """

    def __init__(self, folder: Path, config: Config, note: str, arguments: Mapping[str, object] | None = None) -> None:
        self.folder = folder
        path = folder / CONFIG_NAME
        self.texts = {path: note.format(path=path, folder=folder) + config.dump()}
        if arguments is not None:
            self.texts[folder / ARGUMENTS_NAME] = json.dumps(plain(arguments), indent=1) + "\n"
        self._before: dict[Path, bytes | None] = {}
        self._new = False  # the folder did not exist

    @contextmanager
    def applied(self, trainer: Trainer) -> Iterator[None]:
        """Write the files once ``trainer`` has prepared the folder; undo it if it fails before it saves."""
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
    """Remove what a start has written into a run's folder if it fails before a checkpoint is saved.

    Args:
        folder: the run's folder.
        names: files that the start writes; those that exist already are kept.
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


def continues(folder: Path, *, startable: bool) -> bool:
    """Decide what ``--resume`` does, and log it unless a run is resumed, which the trainer logs.

    Args:
        folder: the run's folder.
        startable: the arguments are enough to start a run.

    Returns:
        True to go by the config in the folder (with a checkpoint or without), False to start by the arguments.

    Raises:
        TrainingError: there is neither a run nor enough to start one.
    """
    if checkpoint.steps_in(folder):
        return True
    if not startable and not (folder / CONFIG_NAME).is_file():
        raise TrainingError(f"nothing to resume: {folder} holds no run; to start one, give its data too")
    start_over(folder)
    return not startable


def start_over(folder: Path) -> None:
    """Log that ``--resume`` starts a run; a ``best.pt`` without a checkpoint to resume from gets another name."""
    log.info("--resume: no checkpoint in %s yet, the run is started", folder)
    best = folder / BEST_NAME
    if best.exists():
        spare = next(path for n in count(1) if not (path := folder / f"best_before_{n}.pt").exists())
        best.rename(spare)
        log.warning("%s: of a run without a checkpoint to resume from; renamed to %s", best, spare.name)


class Kept(NamedTuple):
    """How to resume a run: its config with the options, the files to write, and if there is a checkpoint."""

    config: Config
    files: RunFiles | None
    resume: bool


def kept_run(
    folder: Path, given: Mapping[str, object], options: Sequence[str], schema: Mapping[str, ComponentType], note: str
) -> Kept:
    """Read how to resume the run in a folder. Options become part of its config once a checkpoint is saved under them.

    Args:
        folder: the run's folder.
        given: arguments by name; those that are not None must be the ones that the run was started with.
        options: ``a.b=c`` on top of the config.
        schema: what the config may hold.
        note: see :class:`RunFiles`.

    Raises:
        TrainingError: the folder has no config, or the run was started with other arguments.
        ConfigError: an option is wrong.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise TrainingError(
            f"{folder}: holds checkpoints but no {CONFIG_NAME}; resume it with `tldet train CONFIG --work-dir {folder} "
            "--resume`"
        )
    refuse_other_arguments(folder, given)
    config = read_config(path, parse_options(options))
    import_named(config.get("imports"), config.origin("imports"))
    checked_settings(config, schema)
    files = RunFiles(folder, config, note) if options else None
    return Kept(config, files, bool(checkpoint.steps_in(folder)))
