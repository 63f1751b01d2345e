"""Copies and indices that the host waits for once, not once per tensor."""

from __future__ import annotations

from collections import Counter
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import sync_table
import torch
from rehearsal import Gpu
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from tldet.config import read_config
from tldet.data.dataset import CocoDataset
from tldet.data.eval_batches import eval_batches
from tldet.data.settings import LoaderSettings
from tldet.engine.distributed import World
from tldet.engine.precision import Precision
from tldet.engine.state import RunningMeans
from tldet.engine.step import Stepper
from tldet.models.assigners.atss import assign_adaptively
from tldet.models.assigners.matching import BACKGROUND, IGNORED, assign_targets, draw_samples
from tldet.models.detector import build_detector
from tldet.models.losses import LossNormalizers
from tldet.models.ops.nms import batched_nms
from tldet.models.ops.roi_align import Pool
from tldet.models.pooling import pool_regions, regions_of
from tldet.models.two_stage.rpn import RPN, RPNSettings
from tldet.structures.batch import LabeledBatch
from tldet.structures.detections import Detections
from tldet.structures.masks import InstanceMasks
from tldet.structures.target import Target
from tldet.system.device import constant, send, sum_dtype, to_device, true_rows
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.schema import EvalSettings
from tldet.workflows.training.train_classifier import Accuracy
from tldet.workflows.training.validation import Validation

CPU = torch.device("cpu")
Loaded = tuple[int, bool]  # number of workers, and whether batches are pinned


class LoadError(Exception):
    """A loader was started."""


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Loaded]:
    """Loaders that were to be started on four cores; they raise LoadError."""
    started: list[Loaded] = []

    def load(dataset: Any, batches: Any, workers: int, collate: Any, pin: bool) -> Any:
        started.append((workers, pin))
        raise LoadError

    for module in ("loader", "eval_batches"):
        monkeypatch.setattr(f"tldet.data.{module}.load_batches", load)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)), raising=False)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    return started


@pytest.mark.parametrize("lengths", [[5], [4, 0, 7, 3], [0, 0, 0], [6, 6]])
def test_true_rows(lengths: list[int]) -> None:
    masks = [torch.rand(n, generator=torch.Generator().manual_seed(n)) > 0.5 for n in lengths]
    expected = [mask.nonzero().flatten().tolist() for mask in masks]
    assert [rows.tolist() for rows in true_rows(masks)] == expected
    with Gpu() as gpu:
        there = [mask.pin_memory().to("cuda", non_blocking=True) for mask in masks]
        found = true_rows(there)
        assert gpu.total() <= min(2, len(masks))
        assert [rows.tolist() for rows in found] == expected


def test_tensors_are_fetched_together() -> None:
    tensors = [
        torch.arange(3, dtype=torch.uint8),
        torch.rand(2, 4),
        torch.zeros(0, 28, 28),
        torch.tensor(7),
        torch.tensor([[True], [False]]),
        torch.rand(4, 6).T.bfloat16(),
        torch.rand(5, dtype=torch.float64),
    ]
    with Gpu() as gpu:
        there = [one.pin_memory().to("cuda", non_blocking=True) for one in tensors]
        found = to_device([*there, tensors[1]])
        assert found.pop() is tensors[1]
        assert gpu.by_kind() == {"d2h": 1}
    for one, other in zip(found, tensors, strict=True):
        assert one.device == CPU
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_constants_and_indices_are_sent_without_waiting() -> None:
    with Gpu() as gpu:
        like = torch.zeros(1, device="cuda", dtype=torch.bfloat16)
        made = constant([0.5, 2], like)
        assert made.is_cuda
        assert made.dtype == torch.float32
        assert like[send(torch.tensor([0, 0]), like.device)].shape == (2,)
        assert gpu.total() == 0
        assert made.tolist() == [0.5, 2.0]


def target(**more: Tensor) -> Target:
    boxes = torch.tensor([[0.0, 0, 20, 20], [30, 0, 60, 40], [0, 30, 20, 60]])
    ignore = torch.tensor([False, True, False])
    return Target(boxes, torch.tensor([0, 1, 1]), ignore, 5, **more)


def test_a_target_knows_its_rows_on_the_device() -> None:
    one = target(labeled=torch.tensor([True, False]))
    assert one.known.objects.tolist() == [0, 2]
    assert one.known.crowds.tolist() == [1]
    assert one.partial
    with Gpu() as gpu:
        there = one.to("cuda", non_blocking=True)
        known = replace(there, spared=there.boxes[:1]).known
        assert (known.objects.is_cuda, there.partial, gpu.total()) == (True, True, 0)
        assert known.objects.tolist() == [0, 2]
        assert known.crowds.tolist() == [1]
        changed = replace(there, ignore=~there.ignore, labeled=None)  # nothing is known about other tensors
        assert changed.known.objects.tolist() == [1]
        assert not changed.partial


@pytest.mark.parametrize("kind", ["detector", "classifier"])
def test_validation_pins_batches_and_uses_workers(kind: str, loaded: list[Loaded], digits: Path) -> None:
    loader = LoaderSettings()
    if kind == "detector":
        data = CocoDataset(str(digits / "test" / "_annotations.coco.json"), str(digits / "test"))
        evaluate: Any = Validation(data, loader, EvalSettings())
    else:
        evaluate = Accuracy(cast(Any, SimpleNamespace(input_sizes=np.full((4, 2), 64))), loader)
    with pytest.raises(LoadError):
        evaluate(nn.Linear(1, 1))
    with Gpu(), pytest.raises(LoadError):
        evaluate(nn.Linear(1, 1).to("cuda"))
    assert loaded == [(0, False), (3, True)]


def test_finetuning_pins_batches_and_uses_workers(loaded: list[Loaded], digits: Path, tmp_path: Path) -> None:
    options = ["data.loader.batch_size=2", "training.precision=fp32", "model.backbone.weights=None"]
    given: dict[str, Any] = {"model": "retinanet_lite0", "steps": 1, "cfg_options": options, "report": False}
    with Gpu(), pytest.raises(LoadError):
        finetune(digits, out=tmp_path / "out", **given)
    assert loaded == [(3, True)]


def test_validation_batches_are_pinned(digits: Path) -> None:
    data = CocoDataset(str(digits / "test" / "_annotations.coco.json"), str(digits / "test"), masks=True)
    with Gpu():
        for pin in (True, False):
            batch = next(eval_batches(data, 2, pin=pin))
            assert batch.targets[0].masks is not None
            tensors = [batch.images, *(one for target in batch.targets for one in vars(target).values())]
            assert {one.is_pinned() for one in tensors if isinstance(one, Tensor)} == {pin}


@pytest.mark.parametrize("border", [0.0, 5.0])
@pytest.mark.parametrize("low_quality", ["own", "object"])
def test_anchors_beyond_the_border_are_ignored_without_waiting(border: float, low_quality: Any) -> None:
    settings = RPNSettings(allowed_border=border, low_quality=low_quality, min_pos_iou=0.1)
    rpn, random = RPN(4, [4, 8, 16, 32, 64], settings), torch.Generator().manual_seed(3)
    corners = 90 * torch.rand(500, 2, generator=random) - 20
    anchors = torch.cat([corners, corners + 2 + 40 * torch.rand(500, 2, generator=random)], 1)
    one, size = target(), (60, 64)
    anchors[7] = torch.tensor([-7.0, 0, 20, 20])
    inside = ((anchors[:, :2] >= -border) & (anchors[:, 2:] < torch.tensor([64.0, 60]) + border)).all(1)
    thresholds = {name: getattr(settings, name) for name in ("pos_iou_thr", "neg_iou_thr", "min_pos_iou")}
    thresholds |= {"ignore_iof_thr": settings.ignore_iof_thr, "spare": settings.spare}
    expected = torch.full((500,), IGNORED)
    expected[inside] = assign_targets(anchors[inside], one, low_quality=low_quality, **thresholds)
    assert 50 < inside.sum() < 450
    assert {IGNORED, BACKGROUND, 0, 2} <= set(expected.tolist())
    best = assign_targets(anchors, one, low_quality=low_quality, **thresholds)
    assert (best[inside] != expected[inside]).any(), "some objects fit an anchor beyond the border better"
    assert rpn._assign(anchors, one, size).tolist() == expected.tolist()
    with Gpu() as gpu:
        there = anchors.pin_memory().to("cuda", non_blocking=True), one.to("cuda", non_blocking=True)
        gpu.reset()
        found = rpn._assign(*there, size)
        assert gpu.total() == 0, gpu.table()
        assert found.tolist() == expected.tolist()


class Casts(TorchDispatchMode):
    """Counts of the conversions to float32, by shape."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and result.dtype == torch.float32 != args[0].dtype:
            self.counts[tuple(result.shape)] += 1
        return result


@pytest.mark.parametrize("recipe", ["faster_rcnn_lite0", "mask_rcnn_lite0", "cascade_mask_rcnn_lite0"])
def test_levels_are_converted_to_float32_once(recipe: str) -> None:
    section = read_config(recipe).data["model"]
    head: Any = build_detector(section | {"backbone": {**section["backbone"], "weights": None}}).head
    channels = section["neck"]["out_channels"]
    features = [torch.rand(2, channels, 64 >> i, 80 >> i).bfloat16() for i in range(len(head.rpn.anchors.strides))]
    targets = [sync_table.target(number, (256, 320)) for number in (0, 1)]
    with Casts() as casts, torch.autocast("cpu", torch.bfloat16):
        raw = head(features)
        head.loss(raw, targets, [(256, 320)] * 2, seed=0)
    assert len(raw.features) >= 3
    assert [casts.counts[tuple(level.shape)] for level in raw.features] == [1] * len(raw.features)


@pytest.mark.parametrize("masked", ["no", "patches", "dense"])
def test_detections_come_back_in_one_copy(masked: str) -> None:
    boxes, scores, labels = torch.tensor([[0.0, 0, 5, 5], [1, 1, 4, 9]]), torch.tensor([0.9, 0.3]), torch.tensor([1, 0])
    masks: Tensor | InstanceMasks | None = None
    if masked != "no":
        masks = InstanceMasks(torch.rand(2, 4, 4), boxes, (10, 12))
        masks = masks.dense() if masked == "dense" else masks
    expected = Detections(boxes, scores, labels, masks)
    with Gpu() as gpu:
        there = expected.to("cuda")
        gpu.reset()
        back = there.above(0.1).to("cpu")
        assert gpu.by_kind() == {"shape": 1, "d2h": 1}
    assert torch.equal(back.boxes, boxes)
    assert torch.equal(back.scores, scores)
    assert torch.equal(back.labels, labels)
    assert back.rles() == expected.rles()


def test_detections_of_a_device_are_checked_on_the_host() -> None:
    with Gpu() as gpu:
        boxes = torch.rand(2, 4, device="cuda").sort().values.flip(1)
        there = Detections(boxes, torch.rand(2, device="cuda"), torch.zeros(2, dtype=torch.int64, device="cuda"))
        assert gpu.total() == 0
        with pytest.raises(ValueError, match="box 0 must have x1 >= x0 and y1 >= y0"):
            there.to("cpu")


def test_assignment_and_sampling_are_the_same_on_the_device() -> None:
    random = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(400, 2, generator=random)
    references = torch.cat([corners, corners + 3 + 20 * torch.rand(400, 2, generator=random)], 1)
    one, levels = target(), [references[:300], references[300:]]

    def found(one: Target, levels: list[Tensor]) -> list[list[int]]:
        anchors = torch.cat(levels)
        matched = [
            assign_targets(anchors, one, pos_iou_thr=0.5, neg_iou_thr=0.3, low_quality="own", ignore_iof_thr=0.4),
            assign_targets(anchors, one, pos_iou_thr=0.5, neg_iou_thr=0.3, low_quality="object"),
            assign_adaptively(levels, one, topk=9, ignore_iof_thr=0.4),
        ]
        generators = [torch.Generator().manual_seed(number) for number in range(3)]
        drawn = [rows for pair in draw_samples(matched, 40, 0.25, generators) for rows in pair]
        return [rows.tolist() for rows in (*matched, *drawn)]

    expected = found(one, levels)
    assert {BACKGROUND, IGNORED, 0, 2} <= set(expected[0])
    with Gpu() as gpu:
        there = [level.pin_memory().to("cuda", non_blocking=True) for level in levels]
        assert found(one.to("cuda", non_blocking=True), there) == expected
        assert gpu.total() - gpu.by_kind()["d2h"] <= 2  # the lists are read one by one


@pytest.mark.parametrize("count", [0, 1, 300])
def test_nms_in_groups_is_that_of_torchvision(count: int) -> None:
    random = torch.Generator().manual_seed(1)
    corners = 40 * torch.rand(count, 2, generator=random)
    boxes = torch.cat([corners, corners + 30 * torch.rand(count, 2, generator=random)], 1)
    scores, groups = torch.rand(count, generator=random), torch.randint(0, 4, (count,), generator=random)
    expected = batched_nms(boxes, scores, groups, 0.5).tolist()
    assert len(expected) < max(count, 2)
    with Gpu() as gpu:
        there = [one.pin_memory().to("cuda", non_blocking=True) for one in (boxes, scores, groups)]
        kept = batched_nms(*there, 0.5)
        assert gpu.total() <= 1
        assert kept.tolist() == expected


@pytest.mark.parametrize("ratio", [0, 2])
def test_regions_are_pooled_with_one_wait(ratio: int) -> None:
    random = torch.Generator().manual_seed(2)
    levels = [torch.rand(2, 3, 64 >> i, 64 >> i, generator=random) for i in range(4)]
    corners = 100 * torch.rand(30, 2, generator=random)
    rois = torch.cat([corners, corners + 2 + 150 * torch.rand(30, 2, generator=random) ** 3], 1)
    pool, strides = Pool(3, ratio, True, 0.5), [4, 8, 16, 32]
    expected = pool_regions(levels, regions_of([rois[:10], rois[10:]]), strides, pool)
    with Gpu() as gpu:
        there = [level.pin_memory().to("cuda", non_blocking=True) for level in levels]
        regions = [one.pin_memory().to("cuda", non_blocking=True) for one in (rois[:10], rois[10:])]
        pooled = pool_regions(there, regions_of(regions), strides, pool)
        assert gpu.total() == 1
        torch.testing.assert_close(pooled.cpu(), expected)


class Sum(nn.Module):
    """A model with one loss and one counted normalizer."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.normalizers = nn.Linear(3, 1), LossNormalizers("running", positives=2.0)

    def forward(self, one: LabeledBatch) -> dict[str, Tensor]:
        total = self.fc(one.images).sum()
        return {"loss": total / self.normalizers.divisor("positives", len(one), len(one))}


class Pair(World):
    """Two processes with equal data."""

    def sum(self, values: Tensor) -> Tensor:
        return values + values

    def wrapped(self, model: nn.Module) -> Any:
        model.no_sync = nullcontext  # type: ignore[assignment]
        return model


def test_a_step_of_several_processes_waits_once() -> None:
    with Gpu() as gpu:
        model = Sum().to("cuda")
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        stepper = Stepper(model, optimizer, Precision("fp32", "cuda"), clip_norm=1.0, world=Pair(0, 2))
        batches = [LabeledBatch(torch.ones(2, 3), torch.zeros(2), [number, -number]) for number in (1, 2)]
        gpu.reset()
        result = stepper(batches, 8, lambda: [3, 4])
        assert result.totals == [6, 8]
        assert gpu.total() == 1, gpu.table()


def test_a_training_step_needs_no_float64_on_devices_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [sum_dtype(torch.device(name)) for name in ("mps", "cuda", "cpu")] == [torch.float32] + [torch.float64] * 2
    for module in ("engine.step", "engine.state", "models.normalizers"):
        monkeypatch.setattr(f"tldet.{module}.sum_dtype", lambda _: torch.float32)
    window = RunningMeans()
    with Gpu() as gpu:
        model = Sum().to("cuda")
        stepper = Stepper(model, torch.optim.AdamW(model.parameters()), Precision("fp32", "cuda"), clip_norm=1.0)
        gpu.reset()
        window.add(stepper([LabeledBatch(torch.ones(2, 3), torch.zeros(2), ["a", "b"])]).parts)
        assert gpu.total() == 1
        means = window.take()
    assert gpu.doubles == {}
    assert means.keys() == {"loss"}
