"""Every head: what it must survive, what stays frozen, and that it learns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.ops import box_iou, roi_align

from tests.tools import with_slow
from tldet.config import read_config
from tldet.config.files import shipped
from tldet.errors import ConfigError
from tldet.models.assigners.matching import BACKGROUND, IGNORED, assign_targets, match_by_iou
from tldet.models.backbones import TimmBackbone, TorchvisionBackbone, trainable
from tldet.models.detector import Detector, build_detector
from tldet.structures.batch import Batch
from tldet.structures.target import Target

MASKED = ["mask_rcnn_lite0", "cascade_mask_rcnn_lite0"]
TWO_STAGE = ["faster_rcnn_lite0", "cascade_rcnn_lite0", *MASKED]
RECIPES = [*TWO_STAGE, "retinanet_lite0", "fcos_lite0", "atss_lite0", "gfl_lite0", "dfine_lite0"]
SLOW = ["cascade_rcnn_lite0", "atss_lite0", *MASKED]  # in the test that trains
SOFT = {"loss_centerness", "loss_dfl"}  # against soft targets: they end at the targets' entropy, not at 0


def detector(recipe: str, classes: int = 3) -> Detector:
    torch.manual_seed(0)
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["backbone"]["weights"] = None
    model["head"]["num_classes"] = classes
    built = build_detector(model, [f"class {i}" for i in range(classes)])
    built.backbone.freeze()  # type: ignore[operator]
    return built


def target(boxes: list[list[float]], *, crowd: bool = False, image_id: int = 1) -> Target:
    count = len(boxes)
    box = torch.tensor(boxes, dtype=torch.float32).reshape(count, 4)
    return Target(box, torch.zeros(count, dtype=torch.int64), torch.full((count,), crowd), image_id)


def with_masks(one: Target, size: tuple[int, int]) -> Target:
    """A filled rectangle a box, as mask."""
    masks = torch.zeros(len(one), *size, dtype=torch.uint8)
    for mask, (x0, y0, x1, y1) in zip(masks, one.boxes.round().int().tolist(), strict=True):
        mask[y0:y1, x0:x1] = 1
    return replace(one, masks=masks)


def batch(targets: list[Target], size: tuple[int, int] = (64, 96)) -> Batch:
    padded = [-(-side // 32) * 32 for side in size]
    images = torch.randint(0, 255, (len(targets), 3, *padded), generator=torch.Generator().manual_seed(1)).byte()
    targets = [with_masks(one, size) for one in targets]
    return Batch(images, [size] * len(targets), targets, [size] * len(targets), seed=5)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_batch_without_objects(recipe: str) -> None:
    model = detector(recipe).train()
    losses = model(batch([target([]), target([])]))
    total = sum(losses.values())
    assert torch.isfinite(total)
    total.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    without = [value for name, value in losses.items() if name.endswith(("loss_bbox", "loss_mask"))]
    assert without
    assert all(value.item() == 0 for value in without)


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_image_of_one_pixel(recipe: str) -> None:
    model = detector(recipe)
    one = batch([target([])], (1, 1))
    assert all(torch.isfinite(v) for v in model.train()(one).values())
    (found,) = model.eval()(one)
    assert found.boxes.shape[1] == 4
    assert not len(found) or found.boxes.max() <= 1


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_image_of_crowd_regions_has_zero_loss(recipe: str) -> None:
    """Half a pyramid's anchors lie outside the image; the crowd is so wide that it takes these in, too."""
    losses = detector(recipe).train()(batch([target([[-1000, -1000, 1000, 1000]], crowd=True)]))
    assert {name: v.item() for name, v in losses.items()} == dict.fromkeys(losses, 0.0)


@pytest.mark.parametrize("recipe", with_slow(RECIPES, MASKED))
def test_an_image_with_5000_objects(recipe: str) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(5000, 2, generator=generator) * torch.tensor([300.0, 220.0])
    boxes = torch.cat([corner, corner + 4 + 16 * torch.rand(5000, 2, generator=generator)], 1)
    losses = detector(recipe).train()(batch([target(boxes.tolist())], (240, 320)))
    assert all(torch.isfinite(v) for v in losses.values())


@pytest.mark.parametrize(
    ("rescue", "least", "expected"),
    [
        ("none", 0.0, [0, BACKGROUND, BACKGROUND]),
        ("own", 0.0, [0, 2, BACKGROUND]),  # nobody's best box is box 1
        ("object", 0.0, [1, 2, BACKGROUND]),
        ("object", 0.27, [0, 2, BACKGROUND]),  # box 1 overlaps by a quarter only
        ("object", 0.5, [0, BACKGROUND, BACKGROUND]),
    ],
)
def test_low_quality_matches(rescue: str, least: float, expected: list[int]) -> None:
    references = torch.tensor([[0.0, 0, 10, 10], [0, 30, 10, 40], [60, 60, 70, 70]])
    boxes = torch.tensor([[0.0, 0, 10, 9], [6, 0, 16, 10], [0, 30, 10, 32.8]])
    matched = match_by_iou(references, boxes, pos_iou_thr=0.7, neg_iou_thr=0.3, low_quality=rescue, min_pos_iou=least)
    assert matched.tolist() == expected


@pytest.mark.parametrize("rescue", ["own", "object"])
def test_matching_in_chunks_equals_matching_at_once(monkeypatch: pytest.MonkeyPatch, rescue: str) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(700, 2, generator=generator) * 50
    references = torch.cat([corner, corner + 4 + 20 * torch.rand(700, 2, generator=generator)], 1)
    boxes = references[:40] + torch.rand(40, 4, generator=generator) * 3
    given = {"pos_iou_thr": 0.7, "neg_iou_thr": 0.3, "low_quality": rescue, "min_pos_iou": 0.1}
    whole = match_by_iou(references, boxes, **given)
    monkeypatch.setattr("tldet.models.assigners.matching._CHUNK", 1300)
    assert torch.equal(match_by_iou(references, boxes, **given), whole)
    assert len(set(whole[whole >= 0].tolist())) > 30


def test_references_inside_a_crowd_are_ignored_unless_they_match_an_object() -> None:
    references = torch.tensor([[0.0, 0, 10, 10], [20, 20, 30, 30], [22, 20, 32, 30], [60, 60, 70, 70]])
    truth = Target(
        torch.tensor([[15.0, 15, 45, 45], [20, 20, 30, 30]]),
        torch.zeros(2, dtype=torch.int64),
        torch.tensor([True, False]),
    )
    matched = assign_targets(references, truth, pos_iou_thr=0.7, neg_iou_thr=0.3)
    assert matched.tolist() == [BACKGROUND, 1, IGNORED, BACKGROUND]


@pytest.mark.parametrize("recipe", RECIPES)
def test_frozen_norms_keep_parameters_and_statistics(recipe: str) -> None:
    model = detector(recipe)
    before = {name: t.clone() for name, t in model.backbone.state_dict().items() if "running" in name}
    model.train()
    model.train(False)
    model.train(True)
    model(batch([target([[4, 4, 40, 40]]), target([])]))
    assert len(before) > 50
    after = model.backbone.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    norms = [m for m in model.backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert not any(m.training for m in norms)
    assert not any(p.requires_grad for m in norms for p in m.parameters())


def test_frozen_stages_are_not_trained() -> None:
    model = detector("faster_rcnn_lite0").train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    backbone: Any = model.backbone
    groups = backbone.layer_groups()
    frozen = [prefix for _, group in groups[: backbone.frozen_stages + 1] for prefix in group]
    (first,) = groups[backbone.frozen_stages + 1][1]
    before = {name: p.clone() for name, p in model.backbone.named_parameters()}
    sum(model(batch([target([[4, 4, 40, 40]])])).values()).backward()
    optimizer.step()
    moved = {name for name, p in model.backbone.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert not any(name.startswith(tuple(f + "." for f in frozen)) for name in moved)
    assert any(name.startswith(first + ".") for name in moved), "the first stage above them learns"


def test_norm_batch_trains_the_norms() -> None:
    backbone = TorchvisionBackbone("resnet18", frozen_stages=-1, norm="batch").freeze().train()
    assert trainable(backbone) == sum(p.numel() for p in backbone.parameters())
    before = backbone.bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert not torch.equal(backbone.bn1.running_mean, before)


def test_norm_eval_trains_scales_and_keeps_statistics() -> None:
    backbone = TorchvisionBackbone("resnet18", frozen_stages=1, norm="eval").freeze().train()
    before = backbone.bn1.running_mean.clone(), backbone.layer4[0].bn1.running_mean.clone()
    backbone(torch.randn(2, 3, 64, 64))
    assert torch.equal(backbone.bn1.running_mean, before[0])
    assert torch.equal(backbone.layer4[0].bn1.running_mean, before[1])
    assert backbone.layer4[0].bn1.weight.requires_grad
    assert not backbone.bn1.weight.requires_grad


@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (8, 16, 32)])
def test_declared_channels_and_strides_match_the_features(strides: tuple[int, ...]) -> None:
    backbones = [
        TorchvisionBackbone("resnet18", out_strides=strides),
        TimmBackbone("mobilenetv3_small_050", out_strides=strides),
    ]
    for backbone in backbones:
        outputs = backbone.eval()(torch.zeros(1, 3, 64, 96))
        assert tuple(o.shape[1] for o in outputs) == backbone.channels
        assert tuple(64 // o.shape[2] for o in outputs) == backbone.strides


@pytest.mark.parametrize("recipe", with_slow(RECIPES, SLOW))
def test_a_detector_overfits_one_image(recipe: str) -> None:
    model = detector(recipe).train()
    one = batch([target([[8, 8, 40, 40], [50, 20, 90, 60]])])
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(90):
        optimizer.zero_grad()
        named = model(one)
        sum(named.values()).backward()
        optimizer.step()
        losses.append(sum(v.item() for name, v in named.items() if name not in SOFT))
    assert losses[-1] < (0.5 if recipe == "dfine_lite0" else 0.25) * losses[0]  # a query is matched anew in each step
    (found,) = model.eval()(one)
    overlap = box_iou(one.targets[0].boxes, found[:4].boxes)
    assert (overlap.amax(1) > 0.5).all()
    masks, wanted = found[:4].dense_masks(), one.targets[0].masks
    assert (masks is not None) == (recipe in MASKED)
    if masks is not None and wanted is not None:
        best = masks[overlap.argmax(1)]
        shared, either = ((best & wanted).flatten(1).sum(1), (best | wanted).flatten(1).sum(1))
        assert (shared / either > 0.5).all()


def test_losses_depend_on_the_seed() -> None:
    model = detector("faster_rcnn_lite0").train()
    one = batch([target([[8, 8, 40, 40]]), target([[50, 20, 90, 60]], image_id=2)])
    first, second = ({k: float(v) for k, v in model(one).items()} for _ in range(2))
    assert first == second
    one.seed += 1
    assert {k: float(v) for k, v in model(one).items()} != first


def test_objects_without_a_mask_have_no_mask_loss() -> None:
    model = detector("mask_rcnn_lite0").eval()
    one = batch([target([[8, 8, 40, 40], [50, 20, 90, 60]])])
    whole = model.loss(one)
    assert one.targets[0].masks is not None
    one.targets[0].masks[1] = 0
    half = model.loss(one)
    one.targets[0].masks[:] = 0
    none = model.loss(one)
    assert whole["loss_bbox"] == half["loss_bbox"] == none["loss_bbox"] > 0
    assert none["loss_mask"] == 0 < half["loss_mask"]
    one.targets[0].masks = None
    with pytest.raises(ValueError, match=r"set data\.train\.masks"):
        model.loss(one)


def test_target_masks_are_converted_to_float_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model = detector("mask_rcnn_lite0").eval()
    boxes = [[float(x), float(y), float(x + 20), float(y + 30)] for x in range(0, 70, 7) for y in range(0, 30, 7)]
    one = batch([target(boxes)])
    whole = model.loss(one)["loss_mask"]
    largest = 0

    def measured(masks: torch.Tensor, *arguments: Any) -> torch.Tensor:
        nonlocal largest
        largest = max(largest, masks.numel())
        return roi_align(masks, *arguments)

    monkeypatch.setattr("tldet.models.two_stage.mask._CHUNK", 3 * 64 * 96)
    monkeypatch.setattr("torchvision.ops.roi_align", measured)
    torch.testing.assert_close(model.loss(one)["loss_mask"], whole)
    assert largest == 3 * 64 * 96


@pytest.mark.parametrize("recipe", ["faster_rcnn_lite0", "cascade_mask_rcnn_lite0"])
def test_bf16_autocast(recipe: str) -> None:
    model = detector(recipe).train()
    one = batch([target([[8, 8, 40, 40]]), target([])])
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(one)
        sum(losses.values()).backward()
        found = model.eval()(one)
    assert all(torch.isfinite(v) and v.dtype == torch.float32 for v in losses.values())
    assert all(one.boxes.dtype == one.scores.dtype == torch.float32 for one in found)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_head_forward_is_one_graph(recipe: str) -> None:
    """The whole forward pass is captured in one graph, which gives the same outputs."""
    graphs: list[torch.fx.GraphModule] = []

    def record(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    assert_compiled_equals(detector(recipe).eval(), record)
    assert len(graphs) == 1
    assert sum(node.op.startswith("call_") for node in graphs[0].graph.nodes) > 10


@pytest.mark.slow
def test_the_head_compiles() -> None:
    model = detector("cascade_mask_rcnn_lite0").eval()
    assert_compiled_equals(model, "inductor")


def assert_compiled_equals(model: Detector, backend: Any) -> None:
    """Assert that the compiled head gives the outputs of the head."""
    torch._dynamo.reset()
    with torch.no_grad():
        features = model.features(torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0)))
        compiled = torch.compile(model.head.forward, fullgraph=True, backend=backend)
        ours, theirs = compiled(features), model.head(features)
    pairs = list(zip(*map(torch.utils._pytree.tree_leaves, (ours, theirs)), strict=True))
    assert pairs
    for one, other in pairs:
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_cascade_settings_must_agree() -> None:
    model: dict[str, Any] = read_config("cascade_rcnn_lite0").data["model"]
    model["head"]["cascade"]["pos_iou_thr"] = [0.5, 0.6]
    with pytest.raises(ConfigError, match="one value per stage"):
        build_detector(model)


@pytest.mark.parametrize("name", [n for n in shipped() if "r50" in n or "mask" in n])
def test_shipped_mask_models_are_evaluated_on_masks(name: str) -> None:
    config = read_config(name)
    config["model"]["backbone"]["weights"] = None
    with torch.device("meta"):
        model = build_detector(config["model"])
    assert model.predicts_masks == ("mask" in name)
    assert config.get("evaluation.type") == ("segm" if model.predicts_masks else "bbox")
    for part in ("train", "val"):
        if config.get(f"data.{part}"):
            assert config.get(f"data.{part}.masks", False) == model.predicts_masks


@pytest.mark.parametrize("recipe", ["faster_rcnn_lite0", "mask_rcnn_lite0", "fcos_lite0"])
def test_offsets_are_config_keys(recipe: str) -> None:
    """Half a stride in the anchors and in what is pooled, in every branch; the values of the recipes are unchanged."""
    model: dict[str, Any] = read_config(recipe).data["model"]
    model["backbone"]["weights"] = None
    before = build_detector(model).head
    if recipe == "fcos_lite0":
        assert before.cells.offset == 0.5  # type: ignore[union-attr]
        model["head"].setdefault("settings", {})["offset"] = 0.0
        assert build_detector(model).head.cells.offset == 0.0  # type: ignore[union-attr]
        return
    model["head"]["rpn"]["offset"] = model["head"]["roi"]["offset"] = 0.5
    after: Any = build_detector(model).head
    levels = [torch.zeros(1, 1, 4, 4)] * 4
    pairs = zip(before.rpn.anchors(levels), after.rpn.anchors(levels), after.rpn.anchors.strides, strict=True)  # type: ignore
    assert all(torch.equal(one + stride / 2, other) for one, other, stride in pairs)
    assert before.box.pool.offset == 0.0  # type: ignore[union-attr]
    assert after.box.pool.offset == 0.5
    if recipe == "mask_rcnn_lite0":
        assert after.mask.pool.offset == 0.5
    model["head"]["roi"]["offset"] = 1.5
    with pytest.raises(ConfigError, match="offset"):
        build_detector(model)
