"""Runs of a study in processes of their own, one per GPU."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from tldet import errors
from tldet.components import external_modules
from tldet.errors import TldetError, TrainingError
from tldet.plugins import FOLDERS, import_plugins
from tldet.system.output import write_json
from tldet.system.signals import stop_signals
from tldet.workflows.study.execute import execute
from tldet.workflows.study.job import Job

FAILED_NAME = "failed.json"  # error of a process, in the folder of its run
_LOG_NAME = "worker.log"  # output of a process, in the folder of its run
_TIMEOUT = 600  # seconds for a process to finish its step and save


def gpus() -> list[str]:
    """Return the available GPUs by their names in ``CUDA_VISIBLE_DEVICES``."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible else []
    count = torch.cuda.device_count()
    return names[:count] if names else [str(number) for number in range(count)]


class Worker:
    """A run in a process of its own.

    Args:
        job: the run.
        gpu: GPU of the process.
    """

    def __init__(self, job: Job, gpu: str) -> None:
        self.job = job
        job.save()
        (job.folder / FAILED_NAME).unlink(missing_ok=True)
        command = [sys.executable, "-m", "tldet.workflows.study.workers", str(job.folder), *external_modules()]
        # A session of its own: Ctrl-C in the terminal reaches the parent only, which stops each process once.
        with (job.folder / _LOG_NAME).open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=_environment(gpu), start_new_session=True
            )

    def poll(self) -> dict[str, Any] | None:
        """Return the result when the process has ended, else None.

        Raises:
            TldetError: the run failed.
        """
        if self._process.poll() is None:
            return None
        if (result := self.job.result()) is not None:
            return result
        raise _error_of(self.job.folder, self._process.returncode)

    def ask_to_stop(self) -> None:
        """Let the process save its state and end."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self) -> None:
        """Wait until the process has ended; kill it if it takes too long."""
        try:
            self._process.wait(_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()


def _environment(gpu: str) -> dict[str, str]:
    root = str(Path(__file__).resolve().parents[3])
    external = [path for path in (*sys.path, *FOLDERS) if path] if external_modules() else []  # their locations
    paths = dict.fromkeys([root, *external, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "CUDA_VISIBLE_DEVICES": gpu, "PYTHONPATH": os.pathsep.join(paths)}


def _error_of(folder: Path, code: int) -> TldetError:
    """Return the error that the process has written, or an error with its exit code."""
    try:
        found = json.loads((folder / FAILED_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return TrainingError(f"process ended with exit code {code} and without a result; see {folder / _LOG_NAME}")
    kind: type[TldetError] = getattr(errors, found["kind"])
    return kind(found["message"])


def _kind_of(error: TldetError) -> str:
    """Return the name of the error's class, or of its nearest base class, in :mod:`tldet.errors`."""
    names = [one.__name__ for one in type(error).__mro__]
    return next(name for name, one in zip(names, type(error).__mro__, strict=True) if vars(errors).get(name) is one)


@stop_signals()
def _main(folder: str, *modules: str) -> int:
    """Execute the run of a folder; return the exit code.

    Args:
        folder: the folder.
        modules: external modules that the study has imported.
    """
    from rich.console import Console

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        import_plugins(modules, "study:")
        execute(Job.read(Path(folder)), Console(soft_wrap=True))
    except TldetError as error:
        write_json(Path(folder) / FAILED_NAME, {"kind": _kind_of(error), "message": str(error)})
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
