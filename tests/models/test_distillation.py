"""A detector taught by an older one: what joins the targets, what is held to what, and that the teacher rests."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from tldet.config import read_config
from tldet.errors import ConfigError
from tldet.models.boxes import flatten_levels
from tldet.models.detector import Detector, build_detector
from tldet.models.distillation import (
    DistilledDetector,
    DistillSettings,
    add_detections,
    annotated,
    feature_distance,
)
from tldet.models.heads.retinanet import RetinaNetHead, RetinaRaw
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.masks import InstanceMasks
from tldet.structures.target import Target

SIZE = (64, 96)
KNOWN = torch.tensor([True, True, False])  # of three classes the teacher knows two
ONLY_NEW = torch.tensor([False, False, True])
SETTINGS = DistillSettings(score_thr=0.5, ignore_score_thr=0.2)
OBJECT = [10.0, 10, 30, 30]


def found(*rows: tuple[list[float], float, int], masks: Any = None) -> Detections:
    boxes = torch.tensor([box for box, _, _ in rows], dtype=torch.float32).reshape(-1, 4)
    return Detections(boxes, torch.tensor([s for _, s, _ in rows]), torch.tensor([k for _, _, k in rows]).long(), masks)


def target(labeled: Tensor | None = ONLY_NEW, *, label: int = 2, crowd: bool = False, masks: bool = False) -> Target:
    drawn = torch.ones(1, *SIZE, dtype=torch.uint8) if masks else None
    return Target(torch.tensor([OBJECT]), torch.tensor([label]), torch.tensor([crowd]), 7, drawn, labeled)


def test_confident_detections_become_objects_and_others_ignore_regions() -> None:
    seen = found(
        ([40, 40, 60, 60], 0.9, 0), ([0, 40, 20, 60], 0.3, 1), ([60, 0, 80, 20], 0.5, 1), ([0, 0, 9, 9], 0.19, 0)
    )
    whole = add_detections(target(), seen, KNOWN, SETTINGS)
    assert whole.boxes.tolist() == [OBJECT, [40, 40, 60, 60], [60, 0, 80, 20], [0, 40, 20, 60]]
    assert whole.labels.tolist() == [2, 0, 1, 1]
    assert whole.ignore.tolist() == [False, False, False, True]
    assert whole.labeled is not None
    assert whole.labeled.tolist() == [True, True, True], "where the teacher sees nothing there is nothing"
    assert whole.image_id == 7


@pytest.mark.parametrize(
    ("box", "label", "kept"),
    [
        ([10.0, 10, 30, 30], 0, False),
        ([10.0, 10, 30, 24.2], 0, False),  # IoU 0.71 with an object of another class
        ([10.0, 10, 30, 23.8], 0, True),  # 0.69
        ([10.0, 10, 30, 20.2], 2, False),  # 0.51 with one of its own
        ([10.0, 10, 30, 19.8], 2, True),  # 0.49
    ],
)
def test_annotated_objects_are_not_added_again(box: list[float], label: int, kept: bool) -> None:
    assert annotated(target(), found((box, 0.9, label))).tolist() == [not kept]
    unlabeled = torch.tensor([False, False, False])
    whole = add_detections(target(unlabeled), found((box, 0.9, label)), torch.tensor([True] * 3), SETTINGS)
    assert len(whole) == 1 + kept


def test_a_detection_in_a_crowd_region_is_not_annotated() -> None:
    assert annotated(target(crowd=True), found((OBJECT, 0.9, 2))).tolist() == [False]


@pytest.mark.parametrize("labeled", [None, torch.tensor([True, True, False]), torch.tensor([True, True, True])])
def test_nothing_is_added_for_classes_annotated_on_the_image(labeled: Tensor | None) -> None:
    """Also on an old image, which is not labeled for the new class: the teacher does not know it either."""
    one = target(labeled)
    assert add_detections(one, found(([40, 40, 60, 60], 0.9, 0)), KNOWN, SETTINGS) is one


def test_only_unlabeled_classes_are_added() -> None:
    seen = found(([40, 40, 60, 60], 0.9, 0), ([0, 40, 20, 60], 0.9, 1))
    whole = add_detections(target(torch.tensor([True, False, True])), seen, KNOWN, SETTINGS)
    assert whole.labels.tolist() == [2, 1]


def test_masks_and_boxes_without_extent() -> None:
    boxes = torch.tensor([[40.0, 40, 60, 60], [5, 5, 5, 9]])
    patches = InstanceMasks(torch.ones(2, 28, 28), boxes, SIZE, paste="sampled")
    seen = found(([40, 40, 60, 60], 0.9, 0), ([5, 5, 5, 9], 0.9, 0), masks=patches)
    whole = add_detections(target(masks=True), seen, KNOWN, SETTINGS)
    assert whole.masks is not None
    assert whole.masks.shape == (2, *SIZE)
    assert whole.masks.dtype == torch.uint8
    assert int(whole.masks[1].sum()) == 400 == int(whole.masks[1, 40:60, 40:60].sum())


def test_feature_distance() -> None:
    one = (torch.full((1, 2, 2, 2), 3.0), torch.full((1, 2, 1, 1), 5.0))
    assert float(feature_distance(one, one)) == 0
    assert float(feature_distance([torch.zeros_like(level) for level in one], one)) == pytest.approx(1)
    assert float(feature_distance((one[0] * 1.5, one[1]), one)) == pytest.approx(0.25 / 2)


@pytest.mark.parametrize(("score", "unsure"), [(0.2, 0.5), (1.1, 0.2), (0.5, 0.0)])
def test_thresholds_out_of_range(score: float, unsure: float) -> None:
    with pytest.raises(ConfigError, match="distill: must have 0 < ignore_score_thr <= score_thr <= 1"):
        DistillSettings(score_thr=score, ignore_score_thr=unsure)


def detector(recipe: str, *names: str, norm: str | None = None) -> Detector:
    torch.manual_seed(0)
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["backbone"]["weights"] = None
    if norm is not None:
        model["backbone"].update(norm=norm, frozen_stages=-1)
    model["head"]["num_classes"] = len(names)
    built = build_detector(model, names)
    built.backbone.freeze()  # type: ignore[operator]
    return built


def batch(*targets: Target) -> Batch:
    images = torch.randint(0, 255, (len(targets), 3, *SIZE), generator=torch.Generator().manual_seed(1)).byte()
    return Batch(images, [SIZE] * len(targets), list(targets), [SIZE] * len(targets), seed=5)


def taught(recipe: str, **given: float) -> DistilledDetector:
    student, teacher = detector(recipe, "b", "a", "new"), detector(recipe, "a", "b")
    return DistilledDetector(student, teacher, DistillSettings(**given)).train()


@pytest.mark.parametrize("recipe", ["fcos_lite0", "mask_rcnn_lite0"])
def test_the_teacher_is_frozen_and_not_in_the_state(recipe: str) -> None:
    model = taught(recipe, score_thr=0.011, ignore_score_thr=0.01)
    before = copy.deepcopy(model.teacher.state_dict())
    plain = detector(recipe, "b", "a", "new")
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [n for n, _ in model.named_parameters()] == [n for n, _ in plain.named_parameters()]
    with torch.no_grad():
        next(model.neck.parameters()).mul_(1.1)
    losses = model(batch(target(masks=True), target(masks=True)))
    total = torch.stack(list(losses.values())).sum()
    torch.autograd.backward(total)
    assert torch.isfinite(total)
    assert float(losses["loss_distill"].detach()) > 0
    gradient = next(model.neck.parameters()).grad
    assert gradient is not None
    assert bool(gradient.any())
    assert [model.teacher.training, model.training] == [False, True]
    assert all(p.grad is None and not p.requires_grad for p in model.teacher.parameters())
    assert all(torch.equal(one, before[name]) for name, one in model.teacher.state_dict().items())
    model.eval()
    one = batch(target(masks=True))
    plain.load_state_dict(model.state_dict())
    for mine, other in zip(model(one), plain.eval()(one), strict=True):
        assert torch.equal(mine.boxes, other.boxes), "predicts as an ordinary detector"


@pytest.mark.parametrize("norm", ["frozen", "eval", "batch"])
@pytest.mark.parametrize("recipe", ["fcos_lite0", "faster_rcnn_lite0", "retinanet_r50", "faster_rcnn_r50_v2"])
def test_feature_distance_of_equal_weights_is_0(recipe: str, norm: str) -> None:
    """Also when the backbone's BatchNorms are trained, and again after a validation; statistics stay as they are."""
    student, teacher = (detector(recipe, *names, norm=norm) for names in (("b", "a", "new"), ("a", "b")))
    for one in (student, teacher):
        for place, module in enumerate(m for m in one.modules() if isinstance(m, torch.nn.BatchNorm2d)):
            generator = torch.Generator().manual_seed(place)
            module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)  # type: ignore[union-attr]
    model = DistilledDetector(student, teacher, DistillSettings()).train().eval().train()
    before = {name: one.clone() for name, one in model.neck.state_dict().items()}
    for _ in range(2):
        loss = model(batch(target(), target()))["loss_distill"]
        assert float(loss.detach()) < 1e-9
    assert all(torch.equal(one, before[name]) for name, one in model.neck.state_dict().items())
    if trainable := [p for m in model.neck.modules() if isinstance(m, torch.nn.BatchNorm2d) for p in m.parameters()]:
        assert all(p.requires_grad for p in trainable)


class Queried(RetinaNetHead):
    """A head that needs the ground truth as an input during training."""

    def forward(self, features: Sequence[Tensor], targets: Sequence[Target] | None = None) -> RetinaRaw:
        self.labels = None if targets is None else [one.labels.tolist() for one in targets]
        return super().forward(features)


def test_a_head_with_training_queries_gets_the_added_targets() -> None:
    student, teacher = detector("retinanet_lite0", "b", "a", "new"), detector("retinanet_lite0", "a", "b")
    student.head.__class__ = Queried
    model = DistilledDetector(student, teacher, DistillSettings()).train()
    says = found(([40, 40, 60, 60], 0.9, 0))
    model.teacher.head.decode = lambda raw, sizes: [says for _ in sizes]  # type: ignore[method-assign]
    model(batch(target()))
    assert model.head.labels == [[*target().labels.tolist(), 1]]


def test_without_feature_distillation_norms_are_trained() -> None:
    norms = [m for m in taught("fcos_lite0", features=0.0).neck.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert all(one.training for one in norms)


def test_teacher_labels_are_mapped_to_student_labels() -> None:
    model = taught("retinanet_lite0")
    says = found(([40, 40, 60, 60], 0.9, 0), ([0, 40, 20, 60], 0.9, 1))
    model.teacher.head.decode = lambda raw, sizes: [says for _ in sizes]  # type: ignore[method-assign]
    one = batch(target())
    _, (whole,) = model.run_teacher(model.normalize(one), one)
    assert [model.class_names[i] for i in whole.labels.tolist()] == ["new", "a", "b"]
    assert says.labels.tolist() == [0, 1]


@pytest.mark.parametrize("recipe", ["retinanet_lite0", "fcos_lite0"])
def test_ignore_regions_of_the_teacher_have_no_gradient(recipe: str) -> None:
    """The place of an unsure detection, as large as the image: no class there is pushed down."""
    model = taught(recipe)
    whole = [-200.0, -200, 300, 300]
    gradients = []
    for score in (0.3, 0.05):  # unsure, and not worth a look
        model.teacher.head.decode = lambda raw, sizes, s=score: [found((whole, s, 0)) for _ in sizes]  # type: ignore[method-assign, misc]
        empty = Target(torch.zeros(0, 4), torch.zeros(0).long(), torch.zeros(0).bool(), 1, labeled=ONLY_NEW)
        one = batch(empty)
        raw: Any = model.head(model.features(model.normalize(one)))
        logits = [level.detach().requires_grad_() for level in raw.logits]
        _, targets = model.run_teacher(model.normalize(one), one)
        losses: Any = model.head.loss(raw._replace(logits=tuple(logits)), targets, one.sizes, 5)  # type: ignore[operator]
        gradients.append(flatten_levels(torch.autograd.grad(losses["loss_cls"], logits), 3))  # (1, M, 3)
    assert not gradients[0].any()
    assert bool((gradients[1] > 0).all()), "of all three classes: what the teacher does not see is background"


def test_a_teacher_with_other_classes_or_normalization_is_an_error() -> None:
    with pytest.raises(ValueError, match="has class 'c', the student has not"):
        DistilledDetector(detector("retinanet_lite0", "a", "b"), detector("retinanet_lite0", "c"), SETTINGS)
    blind = detector("retinanet_lite0", "a")
    blind.preprocess = type(blind.preprocess)(mean=(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="normalize images differently"):
        DistilledDetector(detector("retinanet_lite0", "a", "b"), blind, SETTINGS)


def test_the_teacher_is_converted_with_the_student() -> None:
    model = taught("retinanet_lite0").double()
    assert next(model.teacher.parameters()).dtype == torch.float64
