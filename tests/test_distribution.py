"""The wheel of tldet: its contents, and prediction in a new environment without extras."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.runtime.test_distribution import built_wheel, installed

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in an environment of its own, which is next to it."""
    return built_wheel(ROOT, tmp_path_factory.mktemp("environment"))[1]


def test_the_wheel_contains_the_package_and_its_configs_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"tldet"}
    parts = {part for name in names for part in Path(name).parts}
    assert not parts & {"tests", "benchmarks", "examples", "docs"}
    assert "tldet/configs/recipes/faster_rcnn_lite0.py" in names
    assert "tldet/py.typed" in names


def test_a_checkpoint_predicts_without_extras(wheel: Path, run: Path, tmp_path: Path) -> None:
    tldet = wheel.parent / "venv" / "bin" / "tldet"
    installed(tldet.with_name("python"), str(wheel))
    Image.fromarray(np.zeros((96, 128, 3), np.uint8)).save(tmp_path / "a.jpg")
    command = [tldet, "predict", run / "best.pt", tmp_path / "a.jpg", "--out", tmp_path / "out", "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "1 image, " in done.stdout
    assert (tmp_path / "out" / "a.jpg").exists()
