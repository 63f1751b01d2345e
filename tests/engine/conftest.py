"""The tiny run that the engine's tests share."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.tools import same
from tldet import checkpoint
from tldet.engine.logging import read_log


class Die(Exception):
    """Stands for a kill inside one process."""


class DieAt:
    """A hook that kills the run after a step, or while a checkpoint is made."""

    def __init__(self, step: int = -1, save: int = -1) -> None:
        self.step, self.save, self.saves = step, save, 0

    def before_train(self, runner: Any) -> None: ...
    def after_train(self, runner: Any) -> None: ...
    def after_val_epoch(self, runner: Any, metrics: Any) -> None: ...

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
        if batch_idx + 1 == self.step:
            raise Die

    def before_save_checkpoint(self, runner: Any, checkpoint: Any) -> None:
        self.saves += 1
        if self.saves == self.save:
            raise Die


def assert_same_run(whole: Path, other: Path) -> None:
    """The last and the best checkpoint and the log are equal but for times."""
    for name in ("step_00000040.pt", "best.pt"):
        a, b = checkpoint.load_checkpoint(whole / name), checkpoint.load_checkpoint(other / name)
        for state in (a, b):
            if state["training"]:
                assert state["training"].pop("seconds") > 0
        assert [key for key in a if not same(a[key], b[key])] == []
    logs = [
        [{k: v for k, v in one.items() if k != "time"} for one in read_log(f / "log.jsonl")] for f in (whole, other)
    ]
    assert logs[0] == logs[1]
    assert [one["step"] for one in logs[0] if one["type"] == "val"] == list(range(5, 41, 5))
    assert [one["step"] for one in logs[0] if one["type"] == "train"] == list(range(4, 41, 4))


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    """``toy_run.py`` as a module."""
    spec = importlib.util.spec_from_file_location("toy_run", Path(__file__).with_name("toy_run.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["toy_run"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def whole(toy: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    toy.build(folder).run()
    return folder
