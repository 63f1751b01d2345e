"""Fine-tuning, validation, resuming and prediction on a rehearsed GPU: devices are not mixed, the host rarely waits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from rehearsal import Gpu

from tldet import load
from tldet.config import load as load_config
from tldet.data.digits import generate
from tldet.engine.ema import Ema
from tldet.engine.fuse import fuse
from tldet.engine.step import Stepper
from tldet.models.detector import build_detector
from tldet.workflows.finetune import finetune

# Synchronizations of a training step of two images, and of a prediction of two images
LIMITS = {
    "atss_lite0": (8, 16),
    "fcos_lite0": (8, 16),
    "gfl_lite0": (8, 16),
    "retinanet_lite0": (8, 16),
    "faster_rcnn_lite0": (20, 20),
    "mask_rcnn_lite0": (24, 22),
    "cascade_rcnn_lite0": (40, 22),
    "cascade_mask_rcnn_lite0": (40, 26),
}
ACCUMULATE = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three splits with an image without objects and crowd regions."""
    folder = generate(tmp_path_factory.mktemp("crowds"), train=6, valid=4, test=2, size=(96, 128))
    for path in folder.rglob("_annotations.coco.json"):
        coco = json.loads(path.read_text())
        first = coco["images"][0]["id"]
        coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] != first]
        crowded: set[int] = set()
        for one in coco["annotations"]:
            one["iscrowd"] = int(one["image_id"] not in crowded)
            crowded.add(one["image_id"])
        path.write_text(json.dumps(coco))
    return folder


@contextmanager
def counted(gpu: Gpu) -> Iterator[list[int]]:
    """Count the synchronizations of each training step."""
    counts: list[int] = []
    step = Stepper.__call__

    def call(self: Stepper, *given: Any) -> Any:
        before = gpu.total()
        try:
            return step(self, *given)
        finally:
            counts.append(gpu.total() - before)

    with mock.patch.object(Stepper, "__call__", call):
        yield counts


@pytest.mark.parametrize("recipe", LIMITS)
def test_recipe(recipe: str, data: Path, tmp_path: Path) -> None:
    out, (most, most_predicting) = tmp_path / "out", LIMITS[recipe]
    options = ["data.loader.batch_size=2", "data.loader.eval_batch_size=2", f"training.accumulate={ACCUMULATE}"]
    images = sorted((data / "test").glob("*.jpg"))
    with Gpu() as gpu, counted(gpu) as steps:
        finetune(data, out=out, model=recipe, steps=2, options=options)
        finetune(data, out=out, resume=True, options=["schedule.steps=3"])
        predictor = load(out / "best.pt")
        assert next(predictor.model.parameters()).is_cuda
        gpu.reset()
        found = predictor.predict(images, score=0.0)
        predicting = gpu.total(), gpu.table()
    assert len(steps) == 3
    assert max(steps) - 1 <= ACCUMULATE * (most - 1)
    assert predicting[0] <= most_predicting, predicting[1]
    assert [one.boxes.device.type for one in found] == ["cpu"] * len(images)
    assert gpu.mixes == {}


@pytest.mark.parametrize("recipe", ["retinanet_lite0", "faster_rcnn_r50"])
def test_norms_are_folded_on_the_host(recipe: str) -> None:
    torch.manual_seed(0)
    section = load_config(recipe).data["model"]
    section["backbone"]["weights"] = None
    model = build_detector(section).eval()
    with Gpu() as gpu:
        model.to("cuda")
        weights = dict(model.named_parameters())
        gpu.reset()
        fuse(model)
        assert not gpu.ops  # nothing is computed on the device: not in TF32, and not in float64
        assert all(one.is_cuda for one in model.state_dict().values())
        assert all(weights[name] is one for name, one in model.named_parameters() if "head" in name)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())


def test_averages_of_weights_stay_on_the_device() -> None:
    with Gpu() as gpu:
        model = torch.nn.Linear(3, 2).to("cuda")
        ema = Ema(model, 0.9)
        gpu.reset()
        ema.update(1)
        with ema.applied():
            assert model.weight.is_cuda
        assert gpu.total() == 0


def test_prediction_needs_no_float64_on_the_device(run: Path) -> None:
    with Gpu() as gpu:
        predictor = load(run / "best.pt")
        predictor.predict(torch.zeros(3, 96, 128, dtype=torch.uint8))
        assert gpu.ops
    assert gpu.doubles == {}  # MPS has no float64
