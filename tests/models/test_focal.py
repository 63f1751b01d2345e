"""The focal losses and their gradients against torchvision's, the plain formula, and values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import sigmoid_focal_loss

from tldet.models.assigners.matching import Positives
from tldet.models.losses import focal_loss, quality_focal_loss
from tldet.models.ops import focal
from tldet.models.ops.group_norm import GroupNorm


def learn(
    at: list[tuple[int, int, int]], shape: tuple[int, int], ignored: tuple[tuple[int, int], ...] = (), **more: Tensor
) -> Positives:
    """Objects at (image, place, label) among ``shape`` = (B, M) references."""
    counted = torch.ones(shape, dtype=torch.bool)
    for place in ignored:
        counted[place] = False
    image, place, labels = torch.tensor(at, dtype=torch.int64).reshape(-1, 3).unbind(1)
    classes = more.get("classes")
    return Positives(counted, image, place, labels, torch.zeros(len(at), 4), image.bincount(), classes)


def truth_of(positives: Positives, shape: tuple[int, ...], values: Tensor | float = 1.0) -> Tensor:
    truth = torch.zeros(shape)
    truth[positives.image, positives.reference, positives.labels] = torch.as_tensor(values)
    return truth


def counts(positives: Positives, shape: tuple[int, ...]) -> Tensor:
    """(B, M, K) whether an entry is in the loss."""
    entries = positives.valid[..., None].expand(shape)
    entries = entries if positives.annotated is None else entries & positives.annotated[:, None]
    return entries | (truth_of(positives, shape) > 0)


SHAPE = (2, 40, 7)
POSITIVES = learn([(0, 0, 6), (0, 3, 0), (1, 17, 2)], (2, 40), ignored=((0, 5), (1, 39)))
SOME = torch.tensor([[True] * 6 + [False], [True] * 7])
CASES = [POSITIVES, POSITIVES._replace(annotated=SOME), learn([], (2, 40))]


@pytest.mark.parametrize("block", [1, 30, 2**18])
@pytest.mark.parametrize("positives", CASES, ids=["all classes", "some classes", "no object"])
@pytest.mark.parametrize("kind", ["focal", "quality"])
def test_values_and_gradients(positives: Positives, block: int, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(focal, "FOCAL_BLOCK", block)
    ours = (torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * 4).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    if kind == "focal":
        found = focal_loss(ours, positives, alpha=0.25, gamma=2.0)
        entries = sigmoid_focal_loss(theirs, truth_of(positives, SHAPE), alpha=0.25, gamma=2.0)
    else:
        quality = torch.linspace(0.1, 0.9, len(positives.labels))
        found = quality_focal_loss(ours, positives, quality, beta=1.5)
        truth = truth_of(positives, SHAPE, quality)
        raw = F.binary_cross_entropy_with_logits(theirs, truth, reduction="none")
        entries = (truth - theirs.sigmoid()).abs() ** 1.5 * raw
    expected = (entries * counts(positives, SHAPE)).sum((1, 2))
    torch.testing.assert_close(found, expected)
    shares = torch.tensor([0.3, 2.0])
    (found * shares).sum().backward()
    (expected * shares).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_no_gradient_is_computed_without_requires_grad() -> None:
    logits = torch.zeros(1, 2, 3)
    assert not focal_loss(logits, learn([], (1, 2)), alpha=0.25, gamma=2.0).requires_grad


def test_values_by_hand() -> None:
    """Three references of two images, two classes, all scores 1/2; the first was labeled for class 0 only."""
    some = torch.tensor([[True, False], [True, True]])
    half, each = torch.zeros(2, 2, 2), 0.25 * math.log(2)
    for (row, place, label), background in (((0, 0, 1), (2, 4)), ((0, 0, 0), (1, 4)), ((1, 0, 1), (2, 3))):
        positives = learn([(row, place, label)], (2, 2), classes=some)
        found = focal_loss(half, positives, alpha=0.25, gamma=2.0)
        expected = torch.tensor([0.75 * count * each for count in background])
        expected[row] += 0.25 * each
        torch.testing.assert_close(found, expected)
    one = quality_focal_loss(half[:1, :1, :1], learn([(0, 0, 0)], (1, 1)), torch.tensor([1.0]), beta=2.0)
    assert one.item() == pytest.approx(each)  # |1 - 0.5|^2 * -log 0.5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_get_half_precision_gradients(dtype: torch.dtype) -> None:
    """Also of entries so easy that float16 holds their gradient only once the loss is scaled."""
    raw = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) - 6
    logits = raw.to(dtype).requires_grad_()
    whole = logits.detach().float().requires_grad_()
    for leaf in (logits, whole):
        (2**14 * focal_loss(leaf, POSITIVES, alpha=0.25, gamma=2.0) / torch.tensor([3.0, 5.0])).sum().backward()
    assert logits.grad.dtype == dtype
    torch.testing.assert_close(logits.grad.float(), whole.grad, rtol=0.02, atol=1e-6)
    assert (logits.grad[whole.grad.abs() > 1e-6] != 0).all()


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_group_norm_in_bf16_equals_torch(layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    own, other = GroupNorm(4, 16), nn.GroupNorm(4, 16)
    other.load_state_dict(own.state_dict())
    x = torch.randn(2, 16, 5, 7).bfloat16().to(memory_format=layout)
    slope = torch.randn(2, 16, 5, 7).bfloat16()
    found = []
    for norm in (own, other):
        leaf = x.clone().requires_grad_()
        y = norm(leaf)
        y.backward(slope)
        found.append((y, leaf.grad, norm.weight.grad, norm.bias.grad))
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(*found, strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("positives", CASES, ids=["all classes", "some classes", "no object"])
@pytest.mark.parametrize("power", [1.5, 2.0])
def test_the_kernel_equals_its_reference_version(positives: Positives, power: float) -> None:
    logits = [(torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)) * 4).requires_grad_() for _ in range(2)]
    forms = (focal.background_sums, focal.background_sums_reference)
    found, expected = (form(x, power, positives) for form, x in zip(forms, logits, strict=True))
    factors = torch.randn(2), torch.randn(len(positives.labels))
    for (sums, at), x in zip((found, expected), logits, strict=True):
        torch.autograd.backward((sums * factors[0]).sum() + (at * factors[1]).sum())
        assert x.grad is not None
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(logits[0].grad, logits[1].grad, rtol=1e-5, atol=1e-6)
