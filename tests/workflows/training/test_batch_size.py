"""Automatic batch size of a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tldet import checkpoint
from tldet.config import read_config
from tldet.data.index import AnnotationIndex
from tldet.engine.precision import Precision
from tldet.errors import TrainingError
from tldet.models.detector import build_detector
from tldet.workflows.training import batch_size, choose
from tldet.workflows.training.batch_size import largest_fitting, largest_input, measure_batch_size
from tldet.workflows.training.choose import choose_for
from tldet.workflows.training.finetune import finetune, planned_config
from tldet.workflows.training.request import FinetuneRequest
from tldet.workflows.training.run_options import Length


@pytest.mark.parametrize("most", [1, 2, 5, 16, 64])
def test_the_largest_that_fits_is_found_in_few_trials(most: int) -> None:
    for limit in range(70):
        tried: list[int] = []

        def fits(count: int, limit: int = limit, tried: list[int] = tried) -> bool:
            tried.append(count)
            return count <= limit

        assert largest_fitting(fits, most) == min(limit, most)
        assert len(tried) == len(set(tried)) <= 12
        assert max(tried) <= min(most, max(1, 2 * limit))


class Full(torch.nn.Module):
    """A device that holds so many images."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most = most

    def __call__(self, module: Any, given: Any) -> None:
        if len(given[0].images) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("recipe", ["recipes/retinanet_lite0", "recipes/mask_rcnn_lite0"])
def test_steps_are_tried_on_the_model(recipe: str) -> None:
    detector = build_detector(read_config(recipe)["model"]).train()
    trial = batch_size._Trial(detector, Precision(), (64, 96), objects=5)
    detector.register_forward_pre_hook(Full(3))
    assert largest_fitting(trial.fits, 8) == 3
    assert all(p.grad is None for p in detector.parameters())


def test_no_batch_size_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_size._Trial, "fits", lambda self, count: False)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    model = read_config("recipes/retinanet_lite0")["model"]
    with pytest.raises(TrainingError, match=r"out of memory on mps with one image of 1344x800"):
        measure_batch_size(model, (800, 1344), 5, device=torch.device("mps"))


def test_the_input_is_the_largest_of_a_batch_of_all_shapes() -> None:
    import numpy as np

    assert largest_input(np.array([[320, 427], [427, 320], [100, 100]], np.int32)) == (448, 448)


def test_finetune_finds_the_batch_size_for_the_selected_device(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Any] = []

    def evaluate(model: Any, size: Any, objects: int, **more: Any) -> int:
        timed.append((size, model["head"]["num_classes"], objects, more))
        return 5

    monkeypatch.setattr(choose, "measure_batch_size", evaluate)
    monkeypatch.setattr(choose, "describe_device", str)
    monkeypatch.setattr(choose, "pick_device", torch.device)
    index = AnnotationIndex.load(digits / "train" / "_annotations.coco.json")
    recipe = read_config("recipes/retinanet_lite0")
    length = Length("steps", 10)
    keys = {"training.device": "cuda:1", "training.precision": "fp32"}
    choices = choose_for(recipe, index, keys, length)
    assert choices.batch == 5
    assert "batch size 5 (largest that fits on cuda:1)" in choices.reasons
    (size, classes, objects, more) = timed.pop()
    assert (classes, more["precision"], more["device"], more["most"]) == (10, "fp32", torch.device("cuda:1"), 16)
    assert min(size) >= 96
    assert objects >= 1
    assert choose_for(recipe, index, {**keys, "data.loader.batch_size": 3}, length).batch == 3
    assert not timed
    choose_for(recipe, index, {**keys, "data.loader.batch_size": "auto"}, length)
    assert timed.pop()[-1]["most"] == len(index)
    cpu = {"training.device": "cpu"}
    assert choose_for(recipe, index, cpu, length).batch == 4
    large = read_config("recipes/faster_rcnn_r50")
    assert choose_for(large, index, cpu, length).batch == 2
    automatic = {**cpu, "data.loader.batch_size": "auto"}
    assert choose_for(large, index, automatic, length).batch == batch_size.WITHOUT_GPU, "as train() chooses"
    assert not timed


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Models whose batch size was measured."""
    models: list[Any] = []

    def fits(trial: Any, count: int) -> bool:
        models.append(trial.model)
        return count < 3

    monkeypatch.setattr(batch_size._Trial, "fits", fits)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    return models


def test_the_teacher_of_a_distilled_detector_counts(measured: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, teacher = read_config("recipes/retinanet_lite0")["model"], object()
    given: list[Any] = []

    def distilled(student: Any, settings: Any) -> Any:
        given.append((student.class_names, settings))
        student.teacher_stands_in = True
        return student

    monkeypatch.setattr(batch_size, "distilled", distilled)
    model["head"]["num_classes"] = 2
    more: dict[str, Any] = {"device": torch.device("mps"), "class_names": ["a", "b"], "precision": "fp32"}
    assert measure_batch_size(model, (64, 64), 5, distill=teacher, **more) == 2
    assert [(tuple(names), settings) for names, settings in given] == [(("a", "b"), teacher)]
    assert all(one.teacher_stands_in for one in measured)


@pytest.mark.parametrize(
    ("options", "frozen"),
    [({}, False), ({"freeze": ["backbone"]}, True), ({"cfg_options": ["freeze.layers=['backbone']"]}, True),
     ({"gradual": 0.5}, False)],
)  # fmt: skip
def test_finetune_measures_with_the_frozen_layers_of_the_run(
    options: dict[str, Any], frozen: bool, measured: list[Any], digits: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(choose, "pick_device", lambda _: torch.device("mps"))
    more = {**options, "cfg_options": [*options.get("cfg_options", []), "training.precision=fp32"]}
    request = FinetuneRequest(data=digits, model="retinanet_lite0", out=tmp_path, **more)
    config, _ = planned_config(request)
    assert config["data"]["loader"]["batch_size"] == 2
    backbone = list(measured[0].backbone.parameters())
    assert any(one.requires_grad for one in backbone) != frozen


@pytest.mark.slow
def test_a_resumed_run_keeps_its_batch_size(digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["data.loader.batch_size=auto", "training.precision=fp32", "training.checkpoint_every=0.25"]
    monkeypatch.setattr("tldet.workflows.training.batch_size.measure_batch_size", lambda *_, **__: 3)
    finetune(digits, out=tmp_path / "run", model="retinanet_lite0", steps=2, cfg_options=options, report=False)
    saved = checkpoint.load_checkpoint(tmp_path / "run" / "step_00000002.pt")
    assert saved["config"]["data"]["loader"]["batch_size"] == 3
    monkeypatch.setattr("tldet.workflows.training.batch_size.measure_batch_size", lambda *_, **__: pytest.fail("again"))
    finetune(out=tmp_path / "run", resume=True, cfg_options=["schedule.steps=3"], report=False)
    saved = checkpoint.load_checkpoint(tmp_path / "run" / "step_00000003.pt")
    assert saved["config"]["data"]["loader"]["batch_size"] == 3
