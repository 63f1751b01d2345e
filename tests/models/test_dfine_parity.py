"""D-FINE and RT-DETRv2 against transformers, on shared random weights."""

from __future__ import annotations

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


def test_losses_and_gradients(pair: tuple[Any, Detector]) -> None:
    """Every component with the same denoising noise, and the gradient of the sum for every parameter."""
    reference, model = pair
    train_still(reference)
    train_still(model)
    reference.zero_grad()
    model.zero_grad()
    torch.manual_seed(5)
    wanted = reference(images(), labels=labels()).loss_dict
    torch.manual_seed(5)
    raw = model.head_outputs(model.features(images()), TARGETS, None)
    found = model.head.layer_losses(raw, TARGETS)
    distributions = raw.layers[-1].corners is not None
    suffixes = names(len(raw.layers) - distributions, distributions)
    mine = {
        name.replace("loss_cls", "loss_vfl") + suffixes[part]: value
        for part, losses in found.items()
        for name, value in losses.items()
    }
    last = {f"loss_ddf_dn_{len(raw.layers) - 2}"} if distributions else set()  # always 0: a layer is its own teacher
    assert set(wanted) - set(mine) == last
    for name, value in mine.items():
        torch.testing.assert_close(value, wanted[name], atol=1e-4, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    assert sum(mine.values()).item() == pytest.approx(sum(model.head.loss(raw, TARGETS, []).values()).item())
    sum(wanted.values()).backward()
    sum(mine.values()).backward()
    gradients = from_dfine(
        {n.removeprefix("model."): p.grad for n, p in reference.named_parameters() if p.grad is not None}
    )
    own = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert set(gradients) == set(own)
    for name, gradient in gradients.items():
        error = float((own[name] - gradient).norm())  # rounding grows on the way to the first layers
        assert error < 1e-4 + 1e-3 * float(gradient.norm()), name
