"""Loggers for TensorBoard, MLflow and Weights & Biases.

They receive ``train/...`` (loss, loss components, gradient norm), ``lr/GROUP`` for each parameter group, ``val/...``
(metrics and validation losses), ``AP/CLASS`` for each class, and drawn detections on some validation images. A logger
that fails is reported once and then disabled; training continues.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch.optim import Optimizer

from tldet.engine.progress import Reporter
from tldet.engine.schedule import rates
from tldet.structures.image import ImageArray
from tldet.system.output import write_json

log = logging.getLogger(__name__)
SAMPLES = 4  # validation images that are drawn
_IDS_NAME = "loggers.json"  # ids of the runs in MLflow and W&B, in the output directory
SKIPPED = ("type", "step", "time", "lr", "best", "best_step")  # fields of a record that are not logged


class RunLogger:
    """Base class of loggers, which write values and images of a run. Methods may raise any exception.

    Args:
        folder: output directory of the run.
    """

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def start(self, step: int) -> None:
        """Open the log of a new run (step 0), or that of a run resumed after ``step``."""
        raise NotImplementedError

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write values by name."""
        raise NotImplementedError

    def image(self, step: int, name: str, image: ImageArray) -> None:
        """Write a (H, W, 3) uint8 RGB image."""
        raise NotImplementedError

    def close(self) -> None:
        """Flush and close the log."""
        raise NotImplementedError

    def saved_id(self, step: int) -> str | None:
        """Return the id of this run in the database of the logger; None for a new run."""
        return None if step == 0 else _ids(self.folder).get(self.name)

    def save_id(self, value: str) -> None:
        """Save the id for a resumed run."""
        write_json(self.folder / _IDS_NAME, {**_ids(self.folder), self.name: value})


def _ids(folder: Path) -> dict[str, str]:
    with suppress(OSError, ValueError):
        return dict(json.loads((folder / _IDS_NAME).read_text(encoding="utf-8")))
    return {}


class TensorBoardLogger(RunLogger):
    """Write event files to the folder ``tensorboard``; ``pip install tensorboard``."""

    name = "tensorboard"
    _writer: Any

    def start(self, step: int) -> None:
        """Open an event file; steps after ``step`` in earlier files are dropped by TensorBoard."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(self.folder / self.name), purge_step=step + 1 if step else 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write values by name."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: ImageArray) -> None:
        """Write an image."""
        self._writer.add_image(name, image, step, dataformats="HWC")
        self._writer.flush()

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()


class MlflowLogger(RunLogger):
    """Write to the server of ``MLFLOW_TRACKING_URI``, or to ``mlflow.db`` in the folder; ``pip install mlflow``."""

    name = "mlflow"
    _client: Any
    _run = ""

    def start(self, step: int) -> None:
        """Create a run in the experiment ``tldet``, or resume one."""
        from mlflow import MlflowClient

        server = os.environ.get("MLFLOW_TRACKING_URI")
        folder = self.folder.resolve()
        self._client = MlflowClient(tracking_uri=server or f"sqlite:///{folder / 'mlflow.db'}")
        self._run = self.saved_id(step) or ""
        if self._run:
            self._client.update_run(self._run, status="RUNNING")
            return
        found = self._client.get_experiment_by_name("tldet")
        artifacts = None if server else (folder / "mlartifacts").as_uri()
        experiment = (
            found.experiment_id if found else self._client.create_experiment("tldet", artifact_location=artifacts)
        )
        self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
        self.save_id(self._run)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write values by name; characters that MLflow does not allow in names become underscores."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(re.sub(r"[^\w\-. /]", "_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def image(self, step: int, name: str, image: ImageArray) -> None:
        """Write an image as artifact ``NAME/STEP.png``."""
        self._client.log_image(self._run, image, artifact_file=f"{name}/{step:08d}.png")

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run)


class WandbLogger(RunLogger):
    """Write to Weights & Biases through mmengine's backend; ``pip install wandb``, then ``wandb login``."""

    name = "wandb"
    _backend: Any

    def start(self, step: int) -> None:
        """Create a run in the project ``tldet``, or resume one."""
        from mmengine.visualization import WandbVisBackend

        run = self.saved_id(step) or secrets.token_hex(4)
        options = {"project": "tldet", "name": self.folder.resolve().name, "id": run, "resume": "allow"}
        steps = [{"name": "*", "step_metric": "step"}]
        self._backend = WandbVisBackend(str(self.folder), init_kwargs=options, define_metric_cfg=steps)
        _ = self._backend.experiment  # starts the run
        self.save_id(run)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write values by name."""
        self._backend.add_scalars({"step": step, **values})

    def image(self, step: int, name: str, image: ImageArray) -> None:  # noqa: ARG002
        """Write an image at the step of the values before it."""
        self._backend.add_image(name, image)

    def close(self) -> None:
        """End the run."""
        self._backend.close()


LOGGER_TYPES: Mapping[str, type[RunLogger]] = {
    "tensorboard": TensorBoardLogger,
    "mlflow": MlflowLogger,
    "wandb": WandbLogger,
}


def make_loggers(names: Sequence[str], folder: Path) -> list[RunLogger]:
    """Create loggers by name; repeated names are ignored."""
    return [LOGGER_TYPES[name](folder) for name in dict.fromkeys(names)]


class Loggers(Reporter):
    """Reporter that writes the records of a run to loggers, and disables a logger that fails.

    Args:
        loggers: the loggers.
        optimizer: optimizer whose learning rates are logged.
        validation: may have ``result`` (with ``per_class``) and ``drawings`` of the last evaluation.
    """

    def __init__(self, loggers: Sequence[RunLogger], optimizer: Optimizer, validation: Any = None) -> None:
        self._loggers, self._optimizer, self._validation = list(loggers), optimizer, validation

    def start(self, step: int, total: int | None) -> None:  # noqa: ARG002
        """Open the logs."""
        self._each(lambda one: one.start(step))

    def record(self, record: Mapping[str, Any]) -> None:
        """Write the values of a record; after a validation also the AP of each class, and drawn images."""
        step, kind = record["step"], record["type"]
        values = {f"{kind}/{name}": value for name, value in record.items() if name not in SKIPPED}
        if kind == "train":
            values |= {f"lr/{name}": rate for name, rate in rates(self._optimizer).items()}
            values["time/images_per_second"] = record["time"].get("images_per_second")
        else:
            result = getattr(self._validation, "result", None)
            values |= {f"AP/{name}": value for name, value in getattr(result, "per_class", {}).items() if value >= 0}
        finite = {name: float(value) for name, value in values.items() if value is not None and np.isfinite(value)}
        self._each(lambda one: one.scalars(step, finite))
        for number, image in enumerate(getattr(self._validation, "drawings", ()) if kind == "val" else ()):
            self._each(lambda one, n=number, i=image: one.image(step, f"predictions/{n}", i))  # type: ignore[misc]

    def close(self) -> None:
        """Close the logs."""
        self._each(lambda one: one.close())

    def _each(self, call: Callable[[RunLogger], None]) -> None:
        """Call all loggers, and restore the random generators that they may use."""
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        for one in list(self._loggers):
            try:
                call(one)
            except Exception as error:
                self._loggers.remove(one)
                text = "logger %s failed and is disabled; training continues: %s: %s"
                log.warning(text, one.name, type(error).__name__, error)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
