"""D-FINE and RT-DETRv2 against transformers, on shared random weights."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.dfine_reference import IMAGES, TARGETS, images, labels, ours, their_state, theirs, train_still
from tldet.models.detector import Detector
from tldet.transfer.interop.dialects.dfine import from_dfine

NAMES = [
    "dfine_n",
    "rtdetrv2_r18",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in ("dfine_s", "dfine_m", "dfine_l", "rtdetrv2_r50_m", "rtdetrv2_r50")
    ),
]


@pytest.fixture(scope="module", params=NAMES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Detector]:
    reference = theirs(request.param)
    return reference, ours(request.param, their_state(reference))


def order(boxes: Tensor, others: Tensor) -> Tensor:
    """(Q,) for each of the boxes the nearest of the others; equal scores may swap queries."""
    distance = torch.cdist(boxes, others, p=1)
    assert float(distance.amin(1).max()) < 1e-4
    return distance.argmin(1)


@torch.no_grad()
def test_encoder_and_decoder(pair: tuple[Any, Detector]) -> None:
    reference, model = pair
    found = reference.eval()(images())
    features = model.eval().features(images())
    for theirs_, mine in zip(found.encoder_last_hidden_state, features, strict=True):
        assert float(theirs_.abs().max()) > 0.1, "the maps say something"
        torch.testing.assert_close(mine, theirs_, atol=1e-4, rtol=1e-4)
    raw = model.head(features)
    for image in range(IMAGES[0]):
        rows = order(found.init_reference_points[image].sigmoid(), raw.proposals.boxes[image])
        assert len(rows.unique()) > 0.95 * len(rows)
        torch.testing.assert_close(raw.layers[-1].logits[image][rows], found.logits[image], atol=1e-4, rtol=0)
        torch.testing.assert_close(raw.layers[-1].boxes[image][rows], found.pred_boxes[image], atol=1e-4, rtol=0)


@torch.no_grad()
def test_detections_are_the_same_set(pair: tuple[Any, Detector]) -> None:
    reference, model = pair
    found, mine = reference.eval()(images()), model.eval().predict_tensor(images())
    size = torch.tensor([IMAGES[3], IMAGES[2]] * 2)
    for image, detections in enumerate(mine):
        scores, flat = found.logits[image].sigmoid().flatten().topk(100)
        center, extent = found.pred_boxes[image].split(2, -1)
        boxes = (torch.cat([center - extent / 2, center + extent / 2], -1) * size)[flat // 80]
        boxes = boxes.clamp(min=0).minimum(size.float())
        torch.testing.assert_close(detections.scores[:100], scores, atol=1e-4, rtol=0)
        close = torch.cdist(boxes, detections.boxes, p=1).masked_fill((flat % 80)[:, None] != detections.labels, 1e9)
        sure = scores > scores[-1] + 1e-4  # the last ones may be others of the same score
        assert float(close.amin(1)[sure].max()) < 0.05, "pixels"


def names(count: int, distributions: bool) -> dict[str, str]:
    """transformers' suffix for each of our predictions."""
    last = count - 1
    found = {f"layer {n}": f"_aux_{n}" for n in range(last)} | {f"layer {last}": "", "proposals": f"_aux_{last}"}
    return found | {f"denoising {n}": f"_dn_{n}" for n in range(count)}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Double precision throughout: ``float()``, with which losses leave bf16, keeps it."""
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def their_losses(reference: Any, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    torch.manual_seed(5)
    truth = [
        {name: one.to(dtype) if one.is_floating_point() else one for name, one in part.items()} for part in labels()
    ]
    found: dict[str, Tensor] = reference(images().to(dtype), labels=truth).loss_dict
    return found


def our_losses(model: Detector, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The losses of every prediction under transformers' names, with the same denoising noise."""
    torch.manual_seed(5)
    targets = [replace(one, boxes=one.boxes.to(dtype)) for one in TARGETS]
    raw = model.head_outputs(model.features(images().to(dtype)), targets, None)
    found = model.head.layer_losses(raw, targets)  # type: ignore[operator, union-attr]
    distributions = raw.layers[-1].corners is not None
    suffixes = names(len(raw.layers) - distributions, distributions)
    return {
        name.replace("loss_cls", "loss_vfl") + suffixes[part]: value
        for part, losses in found.items()
        for name, value in losses.items()
    }


def test_losses(pair: tuple[Any, Detector]) -> None:
    """Every component."""
    reference, model = (train_still(one) for one in pair)
    with torch.no_grad():
        wanted, mine = their_losses(reference), our_losses(model)
        head: Any = model.head
        torch.manual_seed(5)
        total = sum(head.loss(model.head_outputs(model.features(images()), TARGETS, None), TARGETS, []).values())
    last = [name for name in wanted if name.startswith("loss_ddf_dn_")]  # the last is always 0: its own teacher
    assert set(wanted) - set(mine) == set(last[-1:])
    for name, value in mine.items():
        torch.testing.assert_close(value, wanted[name], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert sum(mine.values()).item() == pytest.approx(total.item())


def test_gradients(pair: tuple[Any, Detector], double: None) -> None:
    """The gradient of the sum for every parameter; in float32, rounding grows on the way to the first layers."""
    reference, model = (train_still(copy.deepcopy(one).double()) for one in pair)
    reference.set_attn_implementation("eager")  # torch's fused attention misreads its float32 mask in double precision
    sum(their_losses(reference, torch.float64).values()).backward()
    sum(our_losses(model, torch.float64).values()).backward()
    gradients = from_dfine(
        {n.removeprefix("model."): p.grad for n, p in reference.named_parameters() if p.grad is not None}
    )
    own = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(gradients) == set(own)
    whole = float(torch.stack([gradient.norm() for gradient in gradients.values()]).norm())
    errors = {name: float((own[name] - gradient).norm()) for name, gradient in gradients.items()}
    wrong = {name: (error, float(gradients[name].norm())) for name, error in errors.items()
             if error > 1e-4 * float(gradients[name].norm()) + 1e-9 * whole}  # fmt: skip
    assert not wrong
