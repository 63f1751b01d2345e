"""Images that were labeled for some classes only: what every head learns there, and what it must not."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou

from tldet.config import read_config
from tldet.models.assigners.matching import BACKGROUND, IGNORED, assign_targets
from tldet.models.boxes import flatten_levels
from tldet.models.detector import Detector, build_detector
from tldet.models.modes import evaluating
from tldet.models.pooling import PaddedBoxes
from tldet.models.postprocess import DetectionTensors, to_detections
from tldet.models.two_stage import loss
from tldet.models.two_stage.box import RoISettings, detect_in_regions
from tldet.models.two_stage.loss import add_spared
from tldet.structures.batch import Batch
from tldet.structures.target import Target

DENSE = ["retinanet_lite0", "fcos_lite0", "atss_lite0", "gfl_lite0"]
BOXES = ["faster_rcnn_lite0", "cascade_rcnn_lite0"]
TWO_STAGE = [*BOXES, "mask_rcnn_lite0", "cascade_mask_rcnn_lite0"]
SIZE = (64, 96)
EVERY, NOT_2 = torch.tensor([True, True, True]), torch.tensor([True, True, False])


def detector(recipe: str) -> Detector:
    torch.manual_seed(0)
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["backbone"]["weights"] = None
    model["head"]["num_classes"] = 3
    built = build_detector(model, ["a", "b", "c"])
    built.backbone.freeze()  # type: ignore[operator]
    return built


def target(*objects: tuple[list[float], int], image_id: int = 1) -> Target:
    boxes = torch.tensor([box for box, _ in objects], dtype=torch.float32).reshape(-1, 4)
    masks = torch.zeros(len(objects), *SIZE, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    labels = torch.tensor([label for _, label in objects], dtype=torch.int64)
    return Target(boxes, labels, torch.zeros(len(objects), dtype=torch.bool), image_id, masks)


def batch(*targets: Target) -> Batch:
    images = torch.randint(0, 255, (len(targets), 3, *SIZE), generator=torch.Generator().manual_seed(1)).byte()
    return Batch(images, [SIZE] * len(targets), list(targets), [SIZE] * len(targets), seed=5)


def losses_and_logits(model: Detector, one: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """The losses of a dense detector, and the gradient of its class loss at every reference and class: (B, M, K)."""
    raw: Any = model.head(model.features(model.normalize(one)))
    logits = [level.detach().requires_grad_() for level in raw.logits]
    losses = model.head.loss(raw._replace(logits=tuple(logits)), one.targets, one.sizes, one.seed)  # type: ignore[operator]
    grads = torch.autograd.grad(losses["loss_cls"], logits)
    return losses, flatten_levels(grads, 3)


def class_scores(model: Detector) -> list[Tensor]:
    """Collects what the second stage's classifiers say while gradients are kept: (R, K + 1) a stage."""
    said: list[Tensor] = []

    def note(_: nn.Module, __: Any, logits: Tensor) -> None:
        if logits.requires_grad:
            logits.retain_grad()
            said.append(logits)

    for name, module in model.named_modules():
        if name.endswith("cls_score"):
            module.register_forward_hook(note)
    return said


@pytest.mark.parametrize("recipe", [*DENSE, *TWO_STAGE, "dfine_lite0"])
def test_all_classes_labeled_equals_no_labels(recipe: str) -> None:
    model = detector(recipe).train()
    plain = batch(target(([8, 8, 40, 40], 1), ([50, 20, 90, 60], 2)), target(image_id=2))
    said = replace(plain, targets=[replace(one, labeled=EVERY) for one in plain.targets])
    with torch.no_grad():
        assert model(said) == model(plain)


@pytest.mark.parametrize("recipe", DENSE)
def test_a_dense_head_has_no_background_gradient_for_an_unlabeled_class(recipe: str) -> None:
    model = detector(recipe).train()
    whole = batch(target(([8, 8, 40, 40], 1), ([50, 20, 90, 60], 0)), target(([20, 10, 70, 60], 2), image_id=2))
    first, second = whole.targets
    losses, expected = losses_and_logits(model, whole)
    some, grads = losses_and_logits(model, replace(whole, targets=[replace(first, labeled=NOT_2), second]))
    assert torch.equal(grads[0, :, 2], torch.zeros_like(grads[0, :, 2]))
    assert torch.equal(grads[0, :, :2], expected[0, :, :2]), "the classes that were labeled learn as ever"
    assert torch.equal(grads[1], expected[1]), "and so does the other image"
    assert (expected[0, :, 2] > 0).any()
    assert {name for name in losses if losses[name] != some[name]} == {"loss_cls"}
    _, grads = losses_and_logits(model, replace(whole, targets=[first, replace(second, labeled=NOT_2)]))
    pushed = grads[1, :, 2]
    assert (pushed <= 0).all(), "an object of the class is learned all the same"
    assert (pushed < 0).any()
    assert torch.equal(pushed < 0, expected[1, :, 2] < 0)


@pytest.mark.parametrize("recipe", TWO_STAGE)
def test_a_two_stage_head_has_no_background_gradient_for_an_unlabeled_class(recipe: str) -> None:
    """Without objects every region is background, and the gradient at class k is p_k - [k in S] p_k / p_S."""
    model = detector(recipe).train()
    said = class_scores(model)
    for labeled, background in ((None, [False, False, False, True]), (NOT_2, [False, False, True, True])):
        said.clear()
        losses = model(batch(replace(target(), labeled=labeled)))
        weights = model.head.cascade.stage_loss_weights if "cascade" in recipe else [1.0]  # type: ignore[union-attr]
        sum(losses.values()).backward()
        assert len(said) == len(weights)
        for logits, weight in zip(said, weights, strict=True):
            chance = logits.detach().softmax(-1)
            own = torch.where(torch.tensor(background), chance, 0.0)
            expected = (chance - own / own.sum(-1, keepdim=True)) * weight / len(logits)
            assert logits.grad is not None
            torch.testing.assert_close(logits.grad, expected, atol=1e-7, rtol=1e-4)
            assert ((logits.grad[:, 2] <= 0) == (labeled is not None)).all()


@pytest.mark.parametrize("recipe", BOXES)
def test_confident_detections_are_not_background_in_either_stage(recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector(recipe).train()
    head: Any = model.head
    sure = torch.tensor([[16.0, 8, 48, 40], [48.0, 8, 80, 40], [8.0, 30, 30, 60]])
    scores, labels = torch.tensor([[0.9, 0.49, 0.8]]), torch.tensor([[2, 2, 1]])  # one unsure, one labeled
    found = DetectionTensors(sure[None], scores, labels, torch.tensor([3]))
    owner, name = (head, "_detect") if "cascade" in recipe else (loss, "detect_in_regions")
    monkeypatch.setattr(owner, name, lambda *_, **__: found)
    one = batch(replace(target(), labeled=NOT_2))
    raw = head(model.features(model.normalize(one)))
    logits = [level.detach().requires_grad_() for level in raw.rpn.logits]
    said = class_scores(model)
    losses = head.loss(raw._replace(rpn=raw.rpn._replace(logits=tuple(logits))), one.targets, one.sizes, None)
    grads = flatten_levels(torch.autograd.grad(losses["loss_rpn_cls"], logits), 1)[0, :, 0]
    anchors = torch.cat(head.rpn.anchors(raw.rpn.logits))
    overlap = box_iou(anchors, sure)
    assert torch.equal(grads == 0, overlap[:, 0] >= 0.3)
    assert (overlap[:, 1:].amax(0) >= 0.3).all(), "the others hold anchors too, which do learn"
    proposals = head.rpn.propose(raw.rpn, one.sizes, training=True).split()[0]
    near = box_iou(proposals, sure[:1])[:, 0] >= 0.5
    assert near.any()
    assert len(said[0]) == len(proposals) - near.sum()


def test_regions_near_own_detections_are_ignored() -> None:
    """A second stage that calls everything class 2."""
    model = detector("faster_rcnn_lite0").train()
    head: Any = model.head
    head.box.cls_score.bias.data[2] = 20
    one = batch(replace(target(), labeled=NOT_2))
    with torch.no_grad():
        raw = head(model.features(model.normalize(one)))
        proposals = head.rpn.propose(raw.rpn, one.sizes, training=True).split()
        found = detect_in_regions(head.box, raw.features, PaddedBoxes.of([proposals[0][:300]]), one.sizes)
        (found,) = to_detections(found, one.sizes)
    near = box_iou(proposals[0], found.boxes).amax(1) >= 0.5
    assert near.sum() > 50
    said = class_scores(model)
    head.loss(raw, one.targets, one.sizes, None)
    assert [len(logits) for logits in said] == [int((~near).sum())]


def test_spared_detections() -> None:
    calls: list[list[int]] = []

    def find(rois: PaddedBoxes) -> DetectionTensors:
        calls.append(rois.counts.tolist())
        scores, labels = torch.tensor([0.9, 0.5, 0.4, 0.8]), torch.tensor([2, 2, 2, 0])
        parts = (part.expand(3, *part.shape) for part in (torch.arange(16.0).reshape(4, 4), scores, labels))
        return DetectionTensors(*parts, torch.tensor([4, 4, 4]))

    branch, proposals = nn.Linear(1, 1), [torch.zeros(305, 4), torch.zeros(7, 4), torch.zeros(3, 4)]
    spare = partial(add_spared, find, branch)
    plain = [target(), replace(target(), labeled=EVERY), target()]
    assert all(one.spared is None for one in spare(proposals, plain, RoISettings()))
    assert calls == [], "nothing is computed where all is labeled"
    given = [replace(target(), labeled=NOT_2), target(), replace(target(), labeled=NOT_2, spared=torch.ones(1, 4))]
    first, second, third = spare(proposals, given, RoISettings())
    assert calls == [[300, 0, 3]]
    assert first.spared is not None
    assert first.spared.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert second.spared is None
    assert third.spared is not None
    assert third.spared.tolist() == [[1, 1, 1, 1], [0, 1, 2, 3], [4, 5, 6, 7]]
    (eager, *_) = spare(proposals, given, RoISettings(spare_score=0.85, spare_among=4))
    assert calls[1:] == [[4, 0, 3]]
    assert eager.spared is not None
    assert eager.spared.tolist() == [[0, 1, 2, 3]]


def test_only_background_is_spared() -> None:
    references = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 6], [0, 0, 10, 4], [40, 40, 50, 50]])
    truth = replace(target(([40, 40, 50, 50], 0)), spared=torch.tensor([[0.0, 0, 10, 10], [40, 40, 50, 50]]))
    for spare, expected in ((0.5, [IGNORED, IGNORED, BACKGROUND, 0]), (0.3, [IGNORED, IGNORED, IGNORED, 0])):
        assert assign_targets(references, truth, pos_iou_thr=0.7, neg_iou_thr=0.3, spare=spare).tolist() == expected
    none = replace(truth, spared=torch.zeros(0, 4))
    assert assign_targets(references, none, pos_iou_thr=0.7, neg_iou_thr=0.3).tolist() == [BACKGROUND] * 3 + [0]


@pytest.mark.parametrize("recipe", TWO_STAGE)
def test_every_parameter_still_gets_a_gradient_under_autocast(recipe: str) -> None:
    """Looking for objects casts the weights first, under no_grad; torch up to 2.9 then went on with these casts."""
    model = detector(recipe).train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(batch(replace(target(([8, 8, 40, 40], 1)), labeled=NOT_2)))
    sum(losses.values()).backward()
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name for name, p in model.named_parameters() if p.grad is not None} == learning


def test_detecting_in_training_keeps_random_state_and_statistics() -> None:
    branch = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3).eval())
    before = {name: value.clone() for name, value in branch.state_dict().items()}
    drawn = torch.random.get_rng_state()
    with evaluating(branch):
        branch(torch.ones(4, 3))
    assert torch.equal(torch.random.get_rng_state(), drawn)
    assert all(torch.equal(value, before[name]) for name, value in branch.state_dict().items())
    assert [part.training for part in branch.modules()] == [True, True, True, False]


def test_moving_a_target_moves_all_its_tensors() -> None:
    one = replace(target(([8, 8, 40, 40], 1)), labeled=NOT_2, spared=torch.zeros(2, 4)).to("meta")
    fields = (one.boxes, one.labels, one.ignore, one.masks, one.labeled, one.spared)
    assert all(value is not None and value.device.type == "meta" for value in fields)
    assert one.image_id == 1
