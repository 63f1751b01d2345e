"""D-FINE's parts: published costs, matching, distributions, denoising, and the invariants that every head keeps."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tldet.config import read_config
from tldet.models.assigners.hungarian import NONE, MatchCosts, PaddedTargets, match_queries, merged, objects_of
from tldet.models.cost import multiply_adds, parameters_of
from tldet.models.denoising import denoising_queries
from tldet.models.detector import Detector, build_detector
from tldet.models.heads.dfine import DFineHead
from tldet.models.meta_tensors import without_storage
from tldet.models.necks.hybrid_encoder import RepBlock
from tldet.models.normalizers import RunningNormalizers
from tldet.models.query_decoder import DecoderOptions, Prediction, QueryDecoder, moved
from tldet.models.query_losses import class_loss, fine_grained_loss, pairs_of
from tldet.structures.target import Target
from tldet.transfer.weights import load_detector

PUBLISHED = {  # millions of parameters and GFLOPs (two operations each) at 640 x 640, as the authors state them
    "dfine_n": (3.8, 7),
    "dfine_s": (10, 25),
    "dfine_m": (19, 57),
    "dfine_l": (31, 91),
    "dfine_x": (62, 202),
    "rtdetrv2_r18": (20, 60),
    "rtdetrv2_r34": (31, 92),
    "rtdetrv2_r50_m": (36, 100),
    "rtdetrv2_r50": (42, 136),
    "rtdetrv2_r101": (76, 259),
}


class Nothing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in {"dfine_n", "rtdetrv2_r18"} else pytest.mark.slow) for n in PUBLISHED]
)
def test_parameters_and_gflops_equal_the_published_ones(name: str) -> None:
    """D-FINE is counted with the 1x1 convolutions of RepVGG blocks merged into the 3x3 ones, RT-DETR without.

    The figures of RT-DETRv2 are those of RT-DETR (Zhao et al. 2024, table 2), which computes the boxes of all cells;
    RT-DETRv2 computes those of the queries.
    """
    model: Any = without_storage(lambda: build_detector(read_config(f"recipes/{name}")["model"])).eval()
    merged_blocks = [one for one in model.modules() if isinstance(one, RepBlock) and name.startswith("dfine")]
    for block in merged_blocks:
        block.conv2 = Nothing()
    image = torch.zeros(1, 3, 640, 640, device="meta")
    operations = 2 * multiply_adds(lambda: model.head(model.features(image)))
    if name.startswith("rtdetr"):
        cells = sum((640 // stride) ** 2 for stride in model.neck.strides)
        operations += (
            2
            * (cells - model.head.num_queries)
            * sum(layer.weight.numel() for layer in model.head.proposal.bbox_head.layers)
        )
    millions, giga = PUBLISHED[name]
    rounding = 0.5 if isinstance(millions, int) else 0.05
    assert parameters_of(model) / 1e6 == pytest.approx(millions, rel=0.03, abs=rounding)
    assert operations / 1e9 == pytest.approx(giga, rel=0.03, abs=0.5)


def small(classes: int = 3, **settings: Any) -> Detector:
    torch.manual_seed(0)
    section = {
        "backbone": {"type": "TimmBackbone", "name": "resnet18", "out_strides": [8, 16, 32], "norm": "eval"},
        "neck": {"type": "HybridEncoder", "out_channels": 32, "feedforward": 32, "expansion": 0.5, "depth": 1},
        "head": {
            "type": "DFineHead",
            "num_classes": classes,
            "num_queries": 20,
            "decoder": {"channels": 32, "layers": 2, "feedforward": 32, "points": [2, 4, 2]},
            "settings": {"num_dn_queries": 6, **settings},
        },
    }
    return build_detector(section, [f"class {n}" for n in range(classes)])


def target(boxes: list[list[float]], labels: list[int], **more: Any) -> Target:
    wide = torch.tensor(boxes, dtype=torch.float32).view(-1, 4)
    ignore = more.pop("ignore", torch.zeros(len(wide), dtype=torch.bool))
    return Target(wide, torch.tensor(labels, dtype=torch.int64), ignore, **more)


FIRST = target([[10, 10, 60, 90], [20, 30, 120, 100]], [0, 2], image_id=7)
SECOND = target([[40, 10, 90, 60]], [1], image_id=9)
EMPTY = target([], [], image_id=11)


def norms_still(model: nn.Module) -> nn.Module:
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()
    return model


def test_batch_loss_is_the_mean_over_images() -> None:
    """With running normalizers: matching, union, distillation and denoising of an image do not see the others."""
    model = small()
    norms_still(model)
    RunningNormalizers(model)
    x = torch.rand(3, 3, 128, 160)
    targets = [FIRST, SECOND, EMPTY]
    whole = model.losses(x, targets, seed=4)
    parts = [model.losses(x[i : i + 1], [one], seed=4) for i, one in enumerate(targets)]
    for name, value in whole.items():
        mean = sum(part.get(name, torch.zeros(())) for part in parts) / 3
        torch.testing.assert_close(value, mean, atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_noise_depends_on_seed_and_image() -> None:
    model = norms_still(small())
    x = torch.rand(1, 3, 128, 160)
    one, same, other = (model.losses(x, [FIRST], seed=seed) for seed in (1, 1, 2))  # type: ignore[operator]
    assert float(one["loss_cls"]) == float(same["loss_cls"]) != float(other["loss_cls"])


@torch.no_grad()
def test_detections_of_an_image_do_not_depend_on_its_batch() -> None:
    model = small().eval()
    x = torch.rand(3, 3, 96, 128)
    together, alone = model.predict_tensor(x), [model.predict_tensor(x[i : i + 1])[0] for i in range(3)]
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a.scores, b.scores, atol=1e-5, rtol=0)
        torch.testing.assert_close(a.boxes, b.boxes, atol=1e-2, rtol=0)


def test_boxes_are_clipped_and_sorted_by_score() -> None:
    model = small().eval()
    with torch.no_grad():
        raw = model.head(model.features(torch.rand(2, 3, 128, 160)))
        boxes, scores, labels, counts = model.head.decode_tensors(raw, [(100, 120), (128, 160)])[:4]
    assert boxes.shape == (2, 60, 4)
    assert labels.dtype == torch.int64
    assert counts.tolist() == [60, 60]
    assert bool((boxes[0, :, 2:] <= torch.tensor([120, 100])).all())
    assert bool((boxes >= 0).all())
    assert bool((scores[:, :-1] >= scores[:, 1:]).all())
    model.head.settings = replace(model.head.settings, score_thr=0.99)
    assert model.head.decode_tensors(raw, [(100, 120)] * 2)[3].tolist() == [0, 0]


@pytest.mark.parametrize("targets", [[EMPTY, EMPTY], [FIRST, EMPTY]])
@pytest.mark.parametrize("settings", [{}, {"class_loss": "mal", "gamma": 1.5}, {"convention": "transformers"}])
def test_images_without_objects(targets: list[Target], settings: dict[str, Any]) -> None:
    model = norms_still(small(**settings))
    losses = model.losses(torch.rand(2, 3, 64, 96), targets, seed=1)  # type: ignore[operator]
    total = sum(losses.values())
    total.backward()
    assert torch.isfinite(total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_more_objects_than_queries() -> None:
    corners = torch.rand(50, 2) * 60
    many = target(torch.cat([corners, corners + 20], 1).tolist(), [0] * 50)
    model = norms_still(small())
    losses = model.losses(torch.rand(1, 3, 96, 96), [many], seed=1)  # type: ignore[operator]
    assert all(torch.isfinite(value) for value in losses.values())


def test_crowd_regions_and_unlabeled_classes_are_not_background() -> None:
    """Class logits in a crowd region, and of classes that were not annotated, get no gradient."""
    model = norms_still(small(num_dn_queries=0))
    x = torch.rand(1, 3, 64, 64)
    partly = target([[5, 5, 40, 40]], [0], labeled=torch.tensor([True, False, True]))
    covered = target([[5, 5, 40, 40], [-500, -500, 600, 600]], [0, 1], ignore=torch.tensor([False, True]))
    for one, spared in ((partly, [1]), (covered, [1, 2])):
        raw = model.head(model.features(x))  # type: ignore[operator, union-attr]
        logits = [layer.logits for layer in raw.layers]
        loss = model.head.loss(raw, [one], [(64, 64)])["loss_cls"]  # type: ignore[operator, union-attr]
        for gradient in torch.autograd.grad(loss, logits):
            assert float(gradient[..., spared].abs().max()) == 0
            assert float(gradient[..., 0].abs().max()) > 0


def test_matching_has_the_least_total_cost() -> None:
    """Against every possible assignment of two objects to four queries."""
    torch.manual_seed(3)
    boxes = torch.rand(2, 2, 4, 4) * 0.4 + 0.2
    predictions = [Prediction(torch.randn(2, 4, 3), boxes[n]) for n in range(2)]
    objects = PaddedTargets(torch.rand(2, 2, 4) * 0.4 + 0.2, torch.tensor([[0, 2], [1, 0]]), [2, 1])
    costs = MatchCosts(classes=0.0, l1=1.0, giou=0.0)
    assigned = match_queries(predictions, objects, costs)
    assert (assigned != NONE).sum((0, 2)).tolist() == [4, 2]
    for n, image in itertools.product(range(2), range(2)):
        distance = torch.cdist(boxes[n, image], objects.boxes[image], p=1)
        count = objects.counts[image]
        best = min(
            sum(float(distance[q, g]) for g, q in enumerate(chosen))
            for chosen in itertools.permutations(range(4), count)
        )
        got = sum(float(distance[q, g]) for q, g in enumerate(assigned[n, image].tolist()) if g != NONE)
        assert got == pytest.approx(best)


def test_the_union_takes_the_most_frequent_object() -> None:
    assigned = torch.tensor([[[0, NONE, 1, NONE]], [[0, NONE, 0, NONE]], [[1, 1, 1, NONE]]])
    assert merged(assigned, 2).tolist() == [[0, 1, 1, NONE]]
    assert merged(assigned[:, :, 3:], 0).tolist() == [[NONE]]


def test_bins_and_distances_are_inverse() -> None:
    """A distribution on the two bins around the true distance gives the true box and the least loss."""
    decoder = QueryDecoder(DecoderOptions(channels=32, layers=1, feedforward=8, points=2), 1, 3)
    values, scale = decoder.bin_values(), decoder.get_buffer("reg_scale")
    assert len(values) == 33
    assert bool((values[1:] > values[:-1]).all())
    assert values[[0, 1, 16, 31, 32]].tolist() == pytest.approx([-4.0, -2.0, 0.0, 2.0, 4.0], abs=1e-5)
    origin = torch.tensor([[[0.5, 0.5, 0.2, 0.4]]])
    truth = torch.tensor([[[0.52, 0.46, 0.25, 0.43]]])
    labels = torch.zeros(1, 1, dtype=torch.int64)
    pairs = pairs_of(torch.zeros(1, 1, dtype=torch.int64), PaddedTargets(truth, labels, [1]))
    corners = torch.zeros(1, 1, 4 * 33, requires_grad=True)
    optimizer = torch.optim.Adam([corners], lr=0.3)
    for _ in range(300):
        loss = fine_grained_loss(corners, origin, pairs, values, scale).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    distances = corners.detach().view(1, 1, 4, -1).softmax(-1) @ values
    torch.testing.assert_close(moved(origin, distances, scale), truth, atol=2e-3, rtol=0)


def test_class_losses_by_hand() -> None:
    """One query with an object at IoU 0.6, one without; the formulas of the papers."""
    logits = torch.tensor([[[0.3, -1.0], [0.2, -2.0]]])
    objects = PaddedTargets(torch.rand(1, 1, 4), torch.tensor([[0]]), [1])
    pairs, quality = pairs_of(torch.tensor([[0, NONE]]), objects), torch.tensor([0.6])
    p = logits.sigmoid()[0]
    vfl = class_loss(logits, pairs, quality, None, kind="vfl", alpha=0.75, gamma=2.0)[0]
    entropy = -(0.6 * p[0, 0].log() + 0.4 * (1 - p[0, 0]).log())
    assert vfl[0, 0].item() == pytest.approx(0.6 * entropy.item())
    assert vfl[1, 1].item() == pytest.approx((-0.75 * p[1, 1] ** 2 * (1 - p[1, 1]).log()).item())
    mal = class_loss(logits, pairs, quality, None, kind="mal", alpha=0.75, gamma=1.5)[0]
    wanted = 0.6**1.5
    assert mal[0, 0].item() == pytest.approx(-(wanted * p[0, 0].log() + (1 - wanted) * (1 - p[0, 0]).log()).item())
    assert mal[1, 0].item() == pytest.approx((-(p[1, 0] ** 1.5) * (1 - p[1, 0]).log()).item())


def test_denoising_queries() -> None:
    """Positives keep more than half of each side's place, negatives move further; groups do not see each other."""
    objects = objects_of([FIRST, SECOND, EMPTY], (128, 160))
    generators = [torch.Generator().manual_seed(i) for i in range(3)]
    found = denoising_queries(objects, 3, generators, count=6, label_noise=0.5, box_noise=1.0)
    assert found is not None
    assert found.groups.tolist() == [3, 6, 0]
    assert found.counted.sum(1).tolist() == [12, 12, 0]
    assert (found.assigned != NONE).sum(1).tolist() == [6, 6, 0]
    assert found.assigned[0, :4].tolist() == [0, 1, NONE, NONE]
    mask = found.mask(5)[:, 0]
    assert bool(mask[0, :4, :4].all())
    assert not bool(mask[0, :4, 4:12].any())
    assert bool(mask[0, :12, 12:].all())
    assert not bool(mask[0, 12:, :12].any())
    assert bool(mask.any(-1).all()), "every query sees something"
    again = denoising_queries(
        objects_of([FIRST], (128, 160)), 3, [torch.Generator().manual_seed(0)], count=6, label_noise=0.5, box_noise=1.0
    )
    assert again is not None
    assert torch.equal(again.boxes, found.boxes[:1]), "the noise of an image does not depend on its batch"
    assert denoising_queries(
        objects_of([EMPTY], (128, 160)), 3, generators[:1], count=6, label_noise=0.5, box_noise=1.0
    ) is None  # fmt: skip


def test_classes_are_transferred_by_name() -> None:
    """Rows of all class layers and of the denoising embedding follow the names; its padding row stays zero."""
    old, new = small(3), small(2)
    new.class_names = ("class 2", "other")
    report = load_detector(new, old.state_dict(), old.class_names, "old")
    head = new.head
    assert isinstance(head, DFineHead)
    for name in head.class_layers:
        before, after = old.head.get_parameter(f"{name}.weight"), head.get_parameter(f"{name}.weight")
        assert torch.equal(after[0], before[2]), name
    assert report.classes == {"class 2": "class 2", "other": None}
    assert not head.denoising_embed.weight[-1].any()
    assert float(head.decoder.layers[0].get_parameter("cls_score.bias")[1]) == pytest.approx(-4.595, abs=1e-3)
    assert not report.new


def with_statistics_of(model: nn.Module, x: Tensor) -> nn.Module:
    """Give frozen norms the statistics of an image, as those of a trained backbone; random layers blow up without."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model.get_submodule("neck")(model.get_submodule("backbone")(x))
    return norms_still(model)


@pytest.mark.slow
def test_dfine_overfits_one_image() -> None:
    torch.manual_seed(0)
    model = small(num_dn_queries=20)
    x = torch.rand(1, 3, 128, 160)
    x[:, :, 10:90, 10:60] += 1
    x[:, 0, 30:100, 20:120] += 2
    with_statistics_of(model, x)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 300)
    for step in range(300):
        losses = model.losses(x, [FIRST], seed=step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    found = model.eval().predict_tensor(x)[0][:2]
    assert sorted(found.labels.tolist()) == [0, 2]
    assert float(found.scores.min()) > 0.5
    for box, label in zip(FIRST.boxes, FIRST.labels, strict=True):
        torch.testing.assert_close(found.boxes[found.labels == label][0], box, atol=3.0, rtol=0)
