"""The one-stage heads: options, precision, compilation, and their parts in the pyramid and the backbone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tldet.config import read_config
from tldet.errors import ConfigError
from tldet.models.backbones import TorchvisionBackbone
from tldet.models.detector import Detector, build_detector
from tldet.models.heads import ATSSHead, FCOSHead, GFLHead, RetinaNetHead
from tldet.models.heads.fcos import FCOSSettings
from tldet.models.necks.fpn import FPN
from tldet.models.postprocess import Candidates, SelectSettings, select, to_detections
from tldet.models.towers import level_scales, tower
from tldet.structures.batch import Batch
from tldet.structures.target import Target

RECIPES = ["retinanet_lite0", "fcos_lite0", "atss_lite0", "gfl_lite0"]
HEADS = {"retinanet": RetinaNetHead, "fcos": FCOSHead, "atss": ATSSHead, "gfl": GFLHead}
STRIDES = (8, 16, 32, 64, 128)


def detector(recipe: str) -> Detector:
    torch.manual_seed(0)
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["backbone"]["weights"] = None
    model["head"]["num_classes"] = 3
    built = build_detector(model)
    built.backbone.freeze()  # type: ignore[operator]
    return built


def batch(*boxes: list[list[float]]) -> Batch:
    box = [torch.tensor(b, dtype=torch.float32).reshape(-1, 4) for b in boxes]
    targets = [Target(b, torch.zeros(len(b), dtype=torch.int64), torch.zeros(len(b), dtype=torch.bool)) for b in box]
    images = torch.randint(0, 255, (len(boxes), 3, 64, 96), generator=torch.Generator().manual_seed(1)).byte()
    return Batch(images, [(64, 96)] * len(boxes), targets, [(64, 96)] * len(boxes))


@pytest.mark.parametrize("recipe", [*RECIPES, "dfine_lite0"])
def test_every_parameter_gets_a_gradient_also_without_objects(recipe: str) -> None:
    """Data-parallel training waits for each of them."""
    for one in (batch([], []), batch([[8, 8, 40, 40]], [])):
        model = detector(recipe).train()
        sum(model(one).values()).backward()
        learning = {name for name, p in model.named_parameters() if p.requires_grad}
        assert {name for name, p in model.named_parameters() if p.grad is not None} == learning


@pytest.mark.parametrize("recipe", [*RECIPES, "dfine_lite0"])
def test_bfloat16_losses_are_close_and_boxes_float32(recipe: str) -> None:
    model, one = detector(recipe).eval(), batch([[8, 8, 40, 40], [50, 20, 90, 60]])
    with torch.no_grad():
        exact = model.loss(one)
        with torch.autocast("cpu", torch.bfloat16):
            rough, (found,) = model.loss_and_predict(one)
    for name, value in exact.items():
        assert rough[name].dtype == torch.float32
        assert float(rough[name]) == pytest.approx(float(value), rel=0.05), name
    assert found.boxes.dtype == found.scores.dtype == torch.float32


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_forward_compiles_as_one_graph(recipe: str, backend: str) -> None:
    head = detector(recipe).head.eval()
    features = [torch.randn(1, 128, 64 // s, 96 // s) for s in (8, 16, 32)] + [torch.randn(1, 128, 1, 2)]
    with torch.no_grad():
        compiled = torch.compile(head, fullgraph=True, backend=backend)(features)
        for levels, expected in zip(compiled, head(features), strict=True):
            for level, plain in zip(levels, expected, strict=True):
                torch.testing.assert_close(level, plain, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", sorted(HEADS))
def test_initial_scores_equal_the_prior(kind: str) -> None:
    head: Any = HEADS[kind](32, STRIDES, 2, channels=64, stacked_convs=1, prior=0.2)
    raw = head.eval()([torch.zeros(1, 32, 2, 2) for _ in STRIDES])
    assert torch.stack([level.sigmoid() for level in raw.logits]).unique().tolist() == pytest.approx([0.2])
    assert head.bbox_pred.weight.std().item() == pytest.approx(0.01, rel=0.1)


def test_tower_layers_and_norms() -> None:
    plain, grouped = tower(32, 64, 2), tower(32, 64, 2, norm="group", bias=False)
    assert [name for name, _ in plain.named_parameters()] == ["0.0.weight", "0.0.bias", "1.0.weight", "1.0.bias"]
    assert [name for name, _ in grouped.named_parameters()][:3] == ["0.0.weight", "0.1.weight", "0.1.bias"]
    for width in (32, 48):  # of one channel a group, a level of one cell has no variance
        with pytest.raises(ValueError, match="multiple of 32 above 32"):
            tower(32, width, 1, norm="group")
    assert torch.isfinite(grouped(torch.randn(1, 32, 1, 1))).all()


def test_a_width_that_fits_no_groups_is_named_by_the_config() -> None:
    model: dict[str, Any] = read_config("atss_lite0").data["model"]
    model["head"]["channels"] = 48
    with pytest.raises(ConfigError, match="head ATSSHead: channels must be a multiple of 32"):
        build_detector(model)


def test_borders_must_fit_the_levels() -> None:
    with pytest.raises(ValueError, match="4 borders for 3 levels"):
        FCOSHead(64, (8, 16, 32), 3)


def test_fcos_box_distances() -> None:
    said = torch.tensor([-1.0, 0.0, 2.0, 1000.0]).view(1, 4, 1, 1)
    cut = FCOSHead(64, STRIDES, 1, stacked_convs=0)
    cut.scales = level_scales(5)
    cut.scales[1].data.fill_(3.0)
    assert cut._distances(said, 1).flatten().tolist() == [0, 0, 2 * 3 * 16, 1000 * 3 * 16]
    raised = FCOSHead(64, STRIDES, 1, stacked_convs=0, settings=FCOSSettings(distances="exp"))
    found = raised._distances(said, 1).flatten()
    assert found[:3].tolist() == pytest.approx([0.367879, 1.0, 7.389056], rel=1e-5)
    assert torch.isfinite(found).all()


def test_fcos_centerness_uses_the_configured_tower() -> None:
    features = [torch.randn(1, 64, 2, 2) for _ in STRIDES]
    for tower_name, option in (("box_tower", "box"), ("cls_tower", "class")):
        head = FCOSHead(64, STRIDES, 2, stacked_convs=1, centerness_on=option)  # type: ignore[arg-type]
        before = head(features).centerness[0]
        getattr(head, tower_name)[0][0].weight.data.mul_(-1)
        assert not torch.allclose(head(features).centerness[0], before)


def test_fcos_scores_and_thresholds() -> None:
    """One location and class: 0.6 by 0.3 as a product after the threshold, or as its root against it."""
    for scoring, limit, expected in (
        ("product", 0.5, [0.18]),
        ("product", 0.65, []),
        ("root", 0.4, [0.18**0.5]),
        ("root", 0.5, []),
    ):
        settings = FCOSSettings(borders=(), scoring=scoring, score_thr=limit)  # type: ignore[arg-type]
        head = FCOSHead(64, (8,), 1, settings=settings)
        logits, middle = (torch.tensor(p).logit().view(1, 1, 1, 1) for p in (0.6, 0.3))
        raw = head([torch.zeros(1, 64, 1, 1)])._replace(logits=(logits,), centerness=(middle,))
        raw = raw._replace(distances=(torch.full((1, 4, 1, 1), 3.0),))
        (found,) = head.decode(raw, [(8, 8)])
        assert found.scores.tolist() == pytest.approx(expected)
        assert found.boxes.tolist() == [[1, 1, 7, 7]] * len(expected)


def test_the_mean_of_a_distribution() -> None:
    head = GFLHead(64, STRIDES, 1, stacked_convs=0, reg_max=4)
    said = torch.full((1, 4, 5), -100.0)
    said[0, 0, 2] = said[0, 1, 1] = said[0, 1, 4] = said[0, 2, 4] = said[0, 3, 0] = 100.0
    assert head._mean(said.flatten(1)).tolist() == [[2.0, 2.5, 4.0, 0.0]]


def test_selection_by_score_nms_and_count() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [1, 0, 11, 10], [30, 5, 40, 15], [0, 0, 5, 5]]])
    scores, labels = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.5]]), torch.tensor([[0, 0, 1, 0, 0]])
    good = torch.tensor([[True, True, True, True, False]])
    candidates = Candidates(*(part[:, [0, 3, 1, 2, 4]] for part in (boxes, scores, labels, good)))
    for settings, expected in (
        (SelectSettings(drop_empty=True), [0.9, 0.7]),  # 0.8 gives way to 0.9; 0.6 lies outside of the image
        (SelectSettings(), [0.9, 0.7, 0.6]),
        (SelectSettings(nms_iou_thr=0.9, drop_empty=True), [0.9, 0.8, 0.7]),
        (SelectSettings(max_per_img=1), [0.9]),
    ):
        least = 1e-9 if settings.drop_empty else None
        (found,) = to_detections(select(candidates, [(20, 20)], settings, least), [(20, 20)])
        assert found.scores.tolist() == pytest.approx(expected)
        assert found.boxes.max() <= 20


def test_relu_before_p7() -> None:
    features = tuple(torch.randn(1, 4, s, s) for s in (8, 4, 2))
    with_relu = FPN([4, 4, 4], [8, 16, 32], 8, extra="p6p7_p5")
    without = FPN([4, 4, 4], [8, 16, 32], 8, extra="p6p7_p5", relu_before_p7=False)
    without.load_state_dict(with_relu.state_dict())
    plain, bare = with_relu(features), without(features)
    assert all(torch.equal(a, b) for a, b in zip(plain[:4], bare[:4], strict=True))
    torch.testing.assert_close(bare[4], without.p7(bare[3]))
    torch.testing.assert_close(plain[4], without.p7(plain[3].relu()))
    assert not torch.equal(plain[4], bare[4])


@pytest.mark.parametrize("extra", ["maxpool", "p6p7_c5", "p6p7_p5", "none"])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_fpn_empties_a_list_of_maps_but_not_a_tuple(extra: Any, norm: Any) -> None:
    torch.manual_seed(0)
    features = tuple(torch.randn(1, c, s, s + 1) for c, s in ((4, 9), (6, 5), (8, 3)))
    kept, given = [level.clone() for level in features], list(features)
    neck = FPN([4, 6, 8], [8, 16, 32], 8, extra=extra, norm=norm).eval()
    first, second = neck(features), neck(given)
    assert not given
    assert [level.shape[-2:] for level in first[:3]] == [level.shape[-2:] for level in kept]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(features, kept, strict=True)), "the maps themselves stay"
    top = neck.lateral[2](kept[2])
    middle = neck.lateral[1](kept[1]) + F.interpolate(top, size=(5, 6), mode="nearest")
    finest = neck.lateral[0](kept[0]) + F.interpolate(middle, size=(9, 10), mode="nearest")
    torch.testing.assert_close(first[0], neck.output[0](finest))
    for wrong in (features[1:], (*features, features[-1])):
        with pytest.raises(ValueError, match=f"takes 3 maps, not {len(wrong)}"):
            neck(wrong)


def test_strided_1x1_convolution() -> None:
    usual, caffe = TorchvisionBackbone("resnet50"), TorchvisionBackbone("resnet50", strided_conv="1x1")
    for number in (2, 3, 4):
        first = getattr(caffe, f"layer{number}")[0]
        assert (first.conv1.stride, first.conv2.stride) == ((2, 2), (1, 1))
    caffe.load_state_dict(usual.state_dict())
    x = torch.randn(1, 3, 64, 64)
    for network in (usual, caffe):
        network.eval()
    ours, theirs = caffe(x), usual(x)
    assert [o.shape for o in ours] == [t.shape for t in theirs]
    assert torch.equal(ours[0], theirs[0])  # stride 4 has none of its own
    assert not torch.allclose(ours[1], theirs[1])
    for name in ("resnet18", "mobilenet_v3_small"):
        with pytest.raises(ValueError, match="ResNets of bottlenecks"):
            TorchvisionBackbone(name, strided_conv="1x1")


def test_a_deep_copy_keeps_the_level_scales() -> None:
    """The running average of the weights is a deep copy."""
    head = copy.deepcopy(ATSSHead(64, STRIDES, 2, stacked_convs=1))
    assert [name for name, _ in head.named_parameters() if "scales" in name] == [f"scales.{i}" for i in range(5)]
    assert isinstance(head.scales, nn.ParameterList)
