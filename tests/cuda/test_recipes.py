"""Fine-tuning, validation, resuming and prediction on a rehearsed GPU: devices are not mixed, the host rarely waits."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from rehearsal import Gpu
from sync_table import CLASSES, batch, detector

from tests.tools import with_slow
from tldet import load
from tldet.config import read_config
from tldet.engine.precision import Precision
from tldet.engine.schedule import ScheduleSettings
from tldet.engine.state import TrainSettings
from tldet.engine.step import Stepper
from tldet.engine.trainer import Trainer
from tldet.inference.predictor import Predictor
from tldet.models.detector import build_detector
from tldet.models.ema import Ema
from tldet.models.surgery.fuse import fuse
from tldet.structures.batch import Batch
from tldet.workflows.training.finetune import finetune

# Synchronizations of a training step of two images, and of a prediction of two images: at most 20 in Faster R-CNN, 40
# in the cascades, 8 in one-stage detectors. Mask R-CNN has besides those of Faster R-CNN the two for the sampled
# positives of its mask loss, and the copies of the masks that are pasted. D-FINE's assignment is computed on the host,
# and each of its decoder layers gathers the matched pairs of its queries, of the denoising queries and of both
# together.
LIMITS = {
    "atss_lite0": (8, 16),
    "fcos_lite0": (8, 16),
    "gfl_lite0": (8, 16),
    "retinanet_lite0": (8, 16),
    "faster_rcnn_lite0": (20, 20),
    "mask_rcnn_lite0": (24, 22),
    "cascade_rcnn_lite0": (40, 22),
    "cascade_mask_rcnn_lite0": (40, 26),
    "dfine_lite0": (22, 6),
}
LIMITS_R50 = {name.replace("lite0", "r50"): most for name, (most, _) in LIMITS.items()} | {"dfine_r50": 33}
# The same code with fewer layers, in a third of the time; the test of a complete run has them all
SMALLER = {"dfine_lite0": ["model.head.decoder.layers=1", "model.head.num_queries=20"]}
SMALLER_LIMITS = {"dfine_lite0": (13, 6)}
ACCUMULATE = 2
SIZE = (64, 64)


class Steps:
    """Synchronizations of each training step, those of each of its micro-batches, and those of the rest of the step."""

    def __init__(self) -> None:
        self.whole: list[int] = []
        self.parts: list[int] = []

    @property
    def rest(self) -> int:
        """Synchronizations of all steps outside of their micro-batches."""
        return sum(self.whole) - sum(self.parts)


@contextmanager
def counted(gpu: Gpu) -> Iterator[Steps]:
    """Count the synchronizations of training steps."""
    steps = Steps()

    def counting(call: Any, counts: list[int]) -> Any:
        def counts_too(self: Stepper, *given: Any) -> Any:
            before = gpu.total()
            result = call(self, *given)
            counts.append(gpu.total() - before)
            return result

        return counts_too

    with (
        mock.patch.object(Stepper, "__call__", counting(Stepper.__call__, steps.whole)),
        mock.patch.object(Stepper, "_backward", counting(Stepper._backward, steps.parts)),
    ):
        yield steps


def batches(start: int) -> Iterator[Batch]:
    """Micro-batches of two images: with objects and a crowd region, then without objects."""
    while True:
        yield batch([0, 1] if start % 2 == 0 else [2, 3], size=SIZE)
        start += 1


def evaluate(model: Any) -> dict[str, float]:
    """Run the model as validation does."""
    losses, found = model.loss_and_predict(batch([0, 3], size=SIZE).to("cuda"))
    assert [one.to("cpu").boxes.device.type for one in found] == ["cpu", "cpu"]
    return {"AP": 0.0, "val_loss": float(sum(losses.values()))}


def trainer(recipe: str, folder: Path, steps: int) -> Trainer:
    """Build the trainer of a recipe on the device."""
    model, training = detector(recipe, SMALLER.get(recipe, ()))
    model.to("cuda").train()
    return Trainer(
        model,
        torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4),
        batches,
        evaluate,
        ScheduleSettings(steps=steps),
        TrainSettings(accumulate=ACCUMULATE, clip_norm=training["clip_norm"], ema=training["ema"], log_every=1),
        folder,
        steps_per_epoch=1,
        batch_size=2,
        precision=Precision("bf16", "cuda"),
    )


@pytest.mark.parametrize("recipe", with_slow(list(LIMITS), {"faster_rcnn_lite0", "cascade_mask_rcnn_lite0"}))
def test_training_resuming_and_prediction(recipe: str, tmp_path: Path) -> None:
    with Gpu() as gpu, counted(gpu) as steps:
        trainer(recipe, tmp_path, 1).run()
        again = trainer(recipe, tmp_path, 2)
        again.run(resume=True)
        assert all(value.is_cuda for value in again.model.state_dict().values())
        predictor = Predictor(again.model, range(CLASSES), short=64, long=64, precision=again.precision)
        gpu.reset()
        found = predictor.predict([np.full((*SIZE, 3), value, np.uint8) for value in (90, 160)], score=0.0)
        waits, table = gpu.total(), gpu.table()
    most, most_predicting = SMALLER_LIMITS.get(recipe, LIMITS[recipe])
    assert (len(steps.whole), len(steps.parts)) == (2, 2 * ACCUMULATE)
    assert steps.rest == 2  # each step waits once: for the loss and the gradient norm
    assert max(steps.parts) <= most - 1
    assert waits <= most_predicting, table
    assert [one.boxes.device.type for one in found] == ["cpu", "cpu"]
    assert gpu.mixes == {}


@pytest.fixture
def crowds(digits: Path, tmp_path: Path) -> Path:
    """The digits with crowd regions and an image without objects in each split."""
    folder = shutil.copytree(digits, tmp_path / "crowds")
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


@pytest.mark.slow
@pytest.mark.parametrize("recipe", LIMITS)
def test_a_complete_run(recipe: str, crowds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    images = sorted((crowds / "test").glob("*.jpg"))
    with Gpu() as gpu, counted(gpu) as steps:
        finetune(crowds, out=out, model=recipe, steps=1, cfg_options=["data.loader.batch_size=2"], report=False)
        finetune(out=out, resume=True, cfg_options=["schedule.steps=2"], report=False)
        predictor = load(out / "best.pt")
        assert next(predictor.model.parameters()).is_cuda
        found = predictor.predict(images, score=0.0)
    assert max(steps.whole) <= LIMITS[recipe][0]
    assert len(found) == len(images)
    assert gpu.mixes == {}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", LIMITS_R50)
def test_a_step_of_a_recipe_on_resnet50(recipe: str) -> None:
    model, training = detector(recipe)
    with Gpu() as gpu, counted(gpu) as steps:
        model.to("cuda").train()
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-4)
        stepper = Stepper(model, optimizer, Precision("fp32", "cuda"), training.get("clip_norm"))
        stepper([batch([0, 1], size=SIZE)])
        table = gpu.table()
    assert steps.whole[0] <= LIMITS_R50[recipe], table
    assert gpu.mixes == {}


@pytest.mark.parametrize("recipe", ["retinanet_lite0", "faster_rcnn_r50"])
def test_norms_are_folded_on_the_host(recipe: str) -> None:
    torch.manual_seed(0)
    section = read_config(recipe).data["model"]
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
