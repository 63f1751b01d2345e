"""The gathered RoIAlign is torchvision's, values and gradients."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import roi_align

from tldet.models.ops.roi_align import Pool
from tldet.models.pooling import pool_regions, regions_of


def boxes_of(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(count, 2, generator=generator) * torch.tensor([500.0, 340.0]) - 40
    extent = torch.rand(count, 2, generator=generator) ** 3 * 300
    boxes = torch.cat([corner, corner + extent], 1)
    boxes[0] = torch.tensor([10.0, 10.0, 10.0, 10.0])  # no extent
    boxes[1] = torch.tensor([-900.0, -900.0, 2000.0, 2000.0])  # mostly outside
    return boxes


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("side", "ratio"), [(7, 1), (7, 2), (14, 2), (3, 3)])
@pytest.mark.parametrize("shape", [(2, 8, 40, 56), (2, 3, 1, 7), (1, 4, 1, 1)])
def test_pooling_by_gather_equals_the_torchvision_kernel(
    shape: tuple[int, ...], side: int, ratio: int, aligned: bool
) -> None:
    torch.manual_seed(0)
    layout = torch.channels_last if side == 7 else torch.contiguous_format
    feature = torch.randn(shape).contiguous(memory_format=layout).requires_grad_()
    boxes = boxes_of(60)
    image = torch.arange(60).mul(shape[0]).div(60, rounding_mode="floor").float()
    rois = [boxes[image == number] for number in range(shape[0])]
    ours = pool_regions([feature], regions_of(rois), [8], Pool(side, ratio, aligned))
    theirs = roi_align(feature, torch.cat([image[:, None], boxes], 1), side, 1 / 8, ratio, aligned)
    torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=1e-5)
    grad = torch.randn(ours.shape)
    got, wanted = (torch.autograd.grad(out, feature, grad)[0] for out in (ours, theirs))
    torch.testing.assert_close(got, wanted, atol=3e-4, rtol=1e-4)
    again = pool_regions([feature], regions_of(rois), [8], Pool(side, ratio, aligned))
    assert torch.equal(got, torch.autograd.grad(again, feature, grad)[0]), "the same sums in the same order each time"


def test_pooling_without_regions() -> None:
    feature = torch.randn(1, 4, 8, 8, requires_grad=True)
    out = pool_regions([feature], regions_of([torch.zeros(0, 4)]), [8], Pool(7, 2, False))
    assert out.shape == (0, 4, 7, 7)
    out.sum().backward()
    assert feature.grad is not None
    assert not feature.grad.any()


def test_regions_are_pooled_from_the_matching_level() -> None:
    levels = [torch.full((2, 1, 640 // s, 640 // s), float(s)) for s in (4, 8, 16, 32)]
    sides = torch.tensor([20.0, 111.0, 112.0, 223.0, 224.0, 447.0, 448.0, 600.0])
    rois = torch.stack([torch.zeros(8), torch.zeros(8), sides, sides], 1)
    for ratio in (1, 0):  # the gather, and the kernel, which alone adapts its samples to the region
        pooled = pool_regions(levels, regions_of([rois[::2], rois[1::2]]), [4, 8, 16, 32], Pool(1, ratio, True))
        assert pooled.flatten().tolist() == [4.0, 8.0, 16.0, 32.0] * 2


def test_several_levels_equal_the_kernel_on_each() -> None:
    torch.manual_seed(1)
    levels = [torch.randn(2, 5, 640 // s, 480 // s) for s in (4, 8, 16, 32)]
    boxes = boxes_of(80)
    rois = [boxes[:50], boxes[50:]]
    ours = pool_regions(levels, regions_of(rois), [4, 8, 16, 32], Pool(7, 2, False))
    image = torch.tensor([0.0] * 50 + [1.0] * 30)
    side = (boxes[:, 2:] - boxes[:, :2]).prod(-1).sqrt()
    fits = (torch.log2(side / 224) + 4 + 1e-6).floor().clamp(2, 5)
    for row, (number, box, level) in enumerate(zip(image, boxes, fits.int().tolist(), strict=True)):
        region = torch.cat([number[None], box])[None]
        theirs = roi_align(levels[level - 2], region, 7, 1 / 2**level, 2, False)[0]
        torch.testing.assert_close(ours[row], theirs, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("offset", [0.5, 1.0])
def test_an_offset_shifts_the_cells_of_every_level(ratio: int, offset: float) -> None:
    """A level whose cell i is centered at (i + offset) strides and holds its own position gives back the position."""
    strides = (8, 16)
    levels = []
    for stride in strides:
        at = (torch.arange(512 // stride) + offset) * stride
        levels.append(torch.stack(torch.meshgrid(at, at, indexing="ij"))[None])  # y and x
    boxes = torch.tensor([[100.0, 60, 180, 110], [50, 90, 390, 420]])
    pooled = pool_regions(levels, regions_of([boxes]), strides, Pool(7, ratio, False, offset))
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    torch.testing.assert_close(pooled[:, :, 3, 3], middle.flip(1), atol=0.01, rtol=0)
    half = pool_regions(levels, regions_of([boxes]), strides, Pool(7, ratio, True, offset - 0.5))
    torch.testing.assert_close(half, pooled, atol=0.01, rtol=1e-4)
