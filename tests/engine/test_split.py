"""The gradient of a step does not depend on how its images are split into micro-batches and processes."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tools import with_slow
from tldet.engine.precision import Precision
from tldet.engine.step import Stepper
from tldet.models.distillation import DistilledDetector, DistillSettings

SCRIPT = Path(__file__).with_name("split_steps.py")
ROOT = SCRIPT.parents[2]
DENSE = ["fcos_lite0", "atss_lite0", "gfl_lite0", "retinanet_lite0"]
TWO_STAGE = ["faster_rcnn_lite0", "mask_rcnn_lite0", "cascade_rcnn_lite0", "cascade_mask_rcnn_lite0"]
RECIPES = [*DENSE, *TWO_STAGE, "dfine_lite0"]
QUICK = ("fcos_lite0", "faster_rcnn_lite0")  # of the tests with two processes
OTHERS = tuple(one for one in RECIPES if one not in QUICK)
CLOSE = 1e-4


def script() -> Any:
    """``split_steps.py`` as a module."""
    spec = importlib.util.spec_from_file_location("split_steps", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


split_steps = script()
EMPTY, FULL = split_steps.EMPTY, split_steps.FULL
batch, detector, distance, steps = split_steps.batch, split_steps.detector, split_steps.distance, split_steps.steps


@cache
def whole(recipe: str) -> list[dict[str, Tensor]]:
    return steps(detector(recipe), [8])


@pytest.mark.parametrize("recipe", with_slow(RECIPES, ["cascade_mask_rcnn_lite0"]))
def test_accumulated_micro_batches_are_one_batch(recipe: str) -> None:
    for split in ([4, 4], [3, 5]) if recipe == "fcos_lite0" else ([4, 4],):
        for step, (one, parts) in enumerate(zip(whole(recipe), steps(detector(recipe), split), strict=True)):
            assert distance(parts, one) < CLOSE, (split, step)


@cache
def two_processes(folder: Path, recipes: tuple[str, ...]) -> Path:
    """Have two processes write the gradients of these recipes into a folder."""
    given = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    given += [str(SCRIPT), str(folder), *recipes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(given, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gradients")


@pytest.mark.parametrize("recipe", with_slow(RECIPES, OTHERS))
def test_processes_are_one_batch(folder: Path, recipe: str) -> None:
    written = two_processes(folder, QUICK if recipe in QUICK else OTHERS)
    found = torch.load(written / f"{recipe}.pt", weights_only=True)
    assert (4, 4) in found
    for split, ours in found.items():
        for step, (one, parts) in enumerate(zip(whole(recipe), ours, strict=True)):
            assert distance(parts, one) < CLOSE, (split, step)


@pytest.mark.parametrize("kind", ["batch", "image"])
def test_the_named_normalizers_depend_on_the_split_or_on_empty_images(kind: str) -> None:
    """MMDetection's divisor depends on the split; torchvision's does not, but gives empty images more weight."""
    ones, parts = (steps(detector("retinanet_lite0", loss_normalizer=kind), split) for split in ([8], [4, 4]))
    with_empty = distance(parts[1], ones[1])
    assert with_empty > 0.1 if kind == "batch" else with_empty < CLOSE


def test_a_distilled_detector() -> None:
    def taught() -> Any:
        settings = DistillSettings(score_thr=0.012, ignore_score_thr=0.011)
        return split_steps.frozen(DistilledDetector(detector("fcos_lite0"), detector("fcos_lite0", seed=1), settings))

    for one, parts in zip(steps(taught(), [8]), steps(taught(), [4, 4]), strict=True):
        assert distance(parts, one) < CLOSE


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_empty_batch_has_no_larger_gradient(recipe: str) -> None:
    """At the first step and after some; the old divisor, 1, made it a hundred times larger.

    Two-stage heads sample as much background from an image without objects, and with random weights all of it pulls
    in one direction: their norm is 1.1 times as large.
    """
    most = 1.3 if recipe in TWO_STAGE else 1.0
    for ready in (0, 2):
        model = detector(recipe)
        stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), Precision())
        for number in range(ready):
            stepper([batch(FULL[:4], number)])
        state = stepper.normalizers.state_dict()
        usual = stepper([batch(FULL[:4], 7)]).norm
        stepper.normalizers.load_state_dict(state)
        assert stepper([batch(EMPTY[:4], 7)]).norm <= most * usual


def test_many_empty_steps_do_not_shrink_the_divisor() -> None:
    model = detector("fcos_lite0")
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), Precision())
    stepper([batch(FULL[:2], 0)])
    before = stepper.normalizers.state_dict()
    for number in range(3):
        stepper([batch(EMPTY[:2], number)])
    assert stepper.normalizers.state_dict() == before


def test_validation_changes_no_mean_and_depends_on_no_batch() -> None:
    model = detector("gfl_lite0")
    stepper = Stepper(model, torch.optim.SGD(model.parameters(), lr=0.0), Precision())
    stepper([batch(FULL[:4], 0)])
    before = stepper.normalizers.state_dict()
    model.eval()
    with torch.no_grad():
        together = model.loss_and_predict(batch([0, 8], 0))[0]
        apart = [model.loss_and_predict(batch([i], 0))[0] for i in (0, 8)]
    for name, value in together.items():
        assert float(value) == pytest.approx(sum(float(one[name]) for one in apart) / 2, rel=1e-4, abs=1e-7)
    assert stepper.normalizers.state_dict() == before


def test_regions_are_drawn_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """An image twice in a step, in whatever micro-batches, is the same."""
    monkeypatch.setattr(split_steps, "STEPS", [[0, 3, 3, 0], [7, 8, 8, 7]])
    one, parts = (steps(detector("faster_rcnn_lite0"), split) for split in ([4], [1, 3]))
    assert all(distance(a, b) < CLOSE for a, b in zip(parts, one, strict=True))
    assert split_steps.norm(one[0]) > 0
