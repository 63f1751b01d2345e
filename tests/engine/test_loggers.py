"""Loggers: written files are read back; a failing logger is dropped, and the weights stay the same."""

from __future__ import annotations

import importlib.util
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from tests.engine.toy_run import Stop, build, evaluate, last
from tldet.engine.loggers import LOGGER_TYPES, Loggers, RunLogger, make_loggers
from tldet.engine.logging import LOG_NAME, read_log
from tldet.engine.state import LOGGERS, TrainSettings
from tldet.errors import ConfigError

IMAGE = np.full((6, 8, 3), 200, np.uint8)
CLASSES = {"cat": 0.5, "big dog (brown)": 0.25, "absent": -1.0}


class Validation:
    """The toy evaluation, with results of classes and a drawn image."""

    result = SimpleNamespace(per_class=CLASSES)
    drawings = (IMAGE,)

    def __call__(self, model: Any) -> dict[str, float]:
        return evaluate(model)


def train(folder: Path, loggers: list[RunLogger], *, stop: int | None = None, resume: bool = False) -> Any:
    validation = Validation()
    trainer = build(folder, steps=20, evaluate=validation, hooks=[Stop(stop)] if stop else [])
    trainer.optimizer.param_groups[0]["name"] = "all"
    trainer.reporter = Loggers(loggers, trainer.optimizer, validation)
    trainer.log_writer._reporter = trainer.reporter
    trainer.run(resume=resume)
    return trainer


def needs(*modules: str) -> pytest.MarkDecorator:
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)} (pip install)")


def of_tensorboard(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[tuple[int, tuple[int, int]]]]:
    """Values by name, and step and size of each image."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    values = {tag: [(one.step, one.value) for one in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    images = [(one.step, (one.height, one.width)) for tag in events.Tags()["images"] for one in events.Images(tag)]
    return values, images


def of_mlflow(folder: Path) -> tuple[dict[str, list[tuple[int, float]]], list[tuple[int, tuple[int, int]]]]:
    from mlflow import MlflowClient
    from PIL import Image

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tldet")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    values = {
        name: [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }
    files = sorted((folder / "mlartifacts").rglob("*.png"))
    return values, [(int(file.stem), Image.open(file).size[::-1]) for file in files]


READERS: dict[str, Callable[[Path], Any]] = {"tensorboard": of_tensorboard, "mlflow": of_mlflow}
FILES = pytest.mark.parametrize(
    "name",
    [
        pytest.param("tensorboard", marks=needs("tensorboard")),
        pytest.param("mlflow", marks=needs("mlflow", "sqlalchemy", "alembic")),
    ],
)


@FILES
def test_logger_files_contain_the_values_of_the_log(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    trainer = train(tmp_path, make_loggers([name, name], tmp_path))
    values, images = READERS[name](tmp_path)
    records = read_log(tmp_path / LOG_NAME)
    for kind, keys in (("train", ("loss", "loss_cls", "loss_reg", "grad_norm")), ("val", ("AP", "val_loss"))):
        for key in keys:
            expected = [(one["step"], pytest.approx(one[key], rel=1e-6)) for one in records if one["type"] == kind]
            assert expected
            assert values[f"{kind}/{key}"] == expected
    rate = trainer.optimizer.param_groups[0]["lr"]
    assert values["lr/all"][-1] == (20, pytest.approx(rate, rel=1e-6))
    steps = [one["step"] for one in records if one["type"] == "val"]
    assert values["AP/cat"] == [(step, 0.5) for step in steps]
    brown = "AP/big dog _brown_" if name == "mlflow" else "AP/big dog (brown)"
    assert values[brown] == [(step, 0.25) for step in steps]
    assert not any("absent" in one for one in values)
    assert images == [(step, (6, 8)) for step in steps]


@FILES
def test_a_resumed_run_appends_to_its_log(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    train(tmp_path, make_loggers([name], tmp_path), stop=8)
    train(tmp_path, make_loggers([name], tmp_path), resume=True)
    values, _ = READERS[name](tmp_path)
    assert [step for step, _ in values["train/loss"]] == [4, 8, 12, 16, 20]


class Broken(RunLogger):
    """Fails in one of its methods, and draws random numbers before."""

    name = "broken"

    def __init__(self, folder: Path, failing: str) -> None:
        super().__init__(folder)
        self.failing, self.calls = failing, []

    def _call(self, method: str) -> None:
        self.calls.append(method)
        np.random.rand(3)  # noqa: NPY002
        if method == self.failing:
            raise RuntimeError(f"no {method} today")

    def start(self, step: int) -> None:
        self._call("start")

    def scalars(self, step: int, values: Any) -> None:
        self._call("scalars")

    def image(self, step: int, name: str, image: Any) -> None:
        self._call("image")

    def close(self) -> None:
        self._call("close")


@pytest.mark.parametrize("failing", ["start", "scalars", "image", "close", ""])
def test_a_failing_logger_is_reported_once_and_training_continues(
    failing: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torch.manual_seed(1)
    train(tmp_path / "plain", [])
    broken, sound = Broken(tmp_path, failing), Broken(tmp_path, "")
    with caplog.at_level(logging.WARNING):
        train(tmp_path / "logged", [broken, sound])
    assert last(tmp_path / "plain", 20) == last(tmp_path / "logged", 20)
    lines = [one.getMessage() for one in caplog.records if "broken" in one.getMessage()]
    expected = f"logger broken failed and is disabled; training continues: RuntimeError: no {failing} today"
    assert lines == ([expected] if failing else [])
    assert broken.calls.count(failing) == (1 if failing else 0)
    assert sound.calls[0] == "start"
    assert sound.calls[-1] == "close"


@pytest.mark.parametrize("name", LOGGERS)
def test_a_package_that_is_not_installed_is_named(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch.utils.tensorboard", "mlflow", "wandb"):
        monkeypatch.setitem(sys.modules, module, None)
    with caplog.at_level(logging.WARNING):
        train(tmp_path, make_loggers([name], tmp_path))
    lines = [one.getMessage() for one in caplog.records if f"logger {name} failed" in one.getMessage()]
    assert len(lines) == 1
    assert name in lines[0].partition("continues:")[2]


class Wandb(SimpleNamespace):
    """Stands for the package: keeps what it is called with."""

    def __init__(self) -> None:
        super().__init__(logged=[], runs=[], ended=0, Image=lambda image: ("image", image.shape))

    def init(self, **options: Any) -> None:
        self.runs.append(options)

    def define_metric(self, **options: Any) -> None:
        self.metric = options

    def log(self, values: dict[str, Any], commit: bool = True) -> None:
        self.logged.append(values)

    def join(self) -> None:
        self.ended += 1


def test_wandb_receives_values_with_their_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Wandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    train(tmp_path, make_loggers(["wandb"], tmp_path), stop=8)
    train(tmp_path, make_loggers(["wandb"], tmp_path), resume=True)
    first, second = fake.runs
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"
    assert fake.metric == {"name": "*", "step_metric": "step"}
    losses = [values["step"] for values in fake.logged if "train/loss" in values]
    assert losses == [4, 8, 12, 16, 20]
    assert {"predictions/0": ("image", (6, 8, 3))} in fake.logged
    assert fake.ended == 2


@pytest.mark.parametrize(
    ("loggers", "message"),
    [
        ((), None),
        (["wandb", "mlflow"], None),
        (["tensorbord"], "training.loggers: unknown logger 'tensorbord'; available: tensorboard, mlflow, wandb"),
    ],
)
def test_names(loggers: Any, message: str | None) -> None:
    assert tuple(LOGGER_TYPES) == LOGGERS
    if message is None:
        assert TrainSettings(loggers=loggers).loggers == loggers
        return
    with pytest.raises(ConfigError) as caught:
        TrainSettings(loggers=loggers)
    assert str(caught.value) == message
