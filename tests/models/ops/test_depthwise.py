"""The rewritten backward pass of depthwise convolutions against torch's own and against double precision."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tldet.models.ops.depthwise import GRADIENTS, Geometry, depthwise_conv2d, native_gradients
from tldet.system.device import cpu_has_bf16

SHAPES = [  # size, kernel, stride, padding, dilation
    pytest.param((13, 17), (3, 3), (2, 2), (0, 0), (1, 1), id="3x3-stride-2"),
    pytest.param((12, 17), (3, 3), (2, 2), (1, 1), (1, 1), id="3x3-stride-2-leftover-row"),
    pytest.param((11, 15), (5, 5), (2, 2), (0, 0), (1, 1), id="5x5-stride-2"),
    pytest.param((12, 14), (5, 5), (2, 2), (2, 2), (1, 1), id="5x5-stride-2-leftovers"),
    pytest.param((9, 8), (5, 5), (1, 1), (2, 2), (1, 1), id="5x5"),
    pytest.param((9, 11), (7, 7), (1, 1), (3, 3), (1, 1), id="7x7"),
    pytest.param((9, 11), (7, 7), (1, 1), (0, 1), (1, 1), id="7x7-little-padding"),
    pytest.param((9, 12), (3, 3), (1, 1), (2, 2), (2, 2), id="3x3-dilated"),
    pytest.param((14, 13), (5, 5), (1, 1), (4, 4), (2, 2), id="5x5-dilated"),
    pytest.param((14, 13), (3, 5), (1, 1), (1, 6), (1, 3), id="3x5-dilated-in-x"),
    pytest.param((14, 13), (5, 3), (2, 1), (2, 2), (1, 2), id="stride-and-dilation-on-two-axes"),
    pytest.param((14, 13), (3, 3), (2, 2), (2, 2), (2, 2), id="stride-and-dilation-on-one-axis"),
    pytest.param((14, 13), (1, 11), (1, 1), (0, 5), (1, 1), id="1x11"),
    pytest.param((14, 13), (4, 4), (4, 4), (0, 0), (1, 1), id="4x4-stride-4"),
    pytest.param((10, 10), (2, 2), (2, 2), (1, 1), (1, 1), id="2x2"),
    pytest.param((9, 9), (3, 3), (3, 2), (1, 0), (1, 1), id="two-strides"),
    pytest.param((9, 9), (1, 1), (2, 2), (1, 1), (1, 1), id="more-padding-than-kernel"),
    pytest.param((5, 5), (5, 5), (1, 1), (0, 0), (1, 1), id="one-output"),
]
shapes = pytest.mark.parametrize(("size", "kernel", "stride", "padding", "dilation"), SHAPES)
layouts = pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=["last", "first"])


def tensors(
    size: tuple[int, int], kernel: tuple[int, int], channels: int = 3, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = ((2, channels, *size), (channels, 1, *kernel), (channels,))
    x, weight, bias = (torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes)
    return x, weight, bias


@layouts
@shapes
def test_gradients_are_exact_in_double_precision(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    layout: torch.memory_format,
) -> None:
    x, weight, bias = tensors(size, kernel)
    x = x.to(memory_format=layout)
    leaves = [t.requires_grad_() for t in (x, weight, bias)]
    out = depthwise_conv2d(GRADIENTS, x, weight, bias, stride, padding, dilation, 3)
    torch.testing.assert_close(out, F.conv2d(x, weight, bias, stride, padding, dilation, 3), rtol=0, atol=0)
    assert out.grad_fn is not None
    grad = torch.randn(out.shape, dtype=out.dtype, generator=torch.Generator().manual_seed(1))
    ours = torch.autograd.grad(out, leaves, grad)
    for_x, for_weight = native_gradients(grad, x, weight, Geometry(stride, padding, dilation))
    for a, b in zip(ours, (for_x, for_weight, grad.sum((0, 2, 3))), strict=True):
        assert b is not None
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    small = [t.detach()[:1].requires_grad_() if t is x else t for t in leaves]

    def call(*args: Tensor) -> Tensor:
        return depthwise_conv2d(GRADIENTS, *args, stride, padding, dilation, 3)

    assert torch.autograd.gradcheck(call, small, fast_mode=True)


@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(5, 2, 1), (3, 1, 2)])
def test_second_derivatives(kernel: int, stride: int, dilation: int) -> None:
    x, weight, bias = (t.requires_grad_() for t in tensors((7, 6), (kernel, kernel), 2))

    def call(*args: Tensor) -> Tensor:
        return depthwise_conv2d(GRADIENTS, *args, stride, 2, dilation, 2)

    assert torch.autograd.gradgradcheck(call, (x, weight, bias))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@layouts
@shapes
def test_error_is_no_worse_than_that_of_native_kernels(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    layout: torch.memory_format,
    dtype: torch.dtype,
) -> None:
    size = (size[0] * 3, size[1] * 3)
    x, weight, _ = (t.to(memory_format=layout) if t.dim() == 4 else t for t in tensors(size, kernel, 32, dtype))
    out = F.conv2d(x, weight, None, stride, padding, dilation, 32)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(out)
    geometry = Geometry(stride, padding, dilation)
    exact = native_gradients(grad.double(), x.double(), weight.double(), geometry)
    native = native_gradients(grad, x, weight, geometry)
    leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
    ours = torch.autograd.grad(depthwise_conv2d(GRADIENTS, *leaves, None, stride, padding, dilation, 32), leaves, grad)
    again = torch.autograd.grad(depthwise_conv2d(GRADIENTS, *leaves, None, stride, padding, dilation, 32), leaves, grad)
    for mine, twice, theirs, true in zip(ours, again, native, exact, strict=True):
        assert torch.equal(mine, twice)
        assert theirs is not None
        assert true is not None
        assert mine.dtype == dtype
        error, allowed = ((t.double() - true).norm() for t in (mine, theirs))
        assert error <= (1e-5 if dtype == torch.float32 else 1e-2) * true.norm()
        emulated = dtype == torch.bfloat16 and not cpu_has_bf16()  # natively in float32, then rounded once
        if allowed.isfinite() and not emulated:  # torch's dilated bf16 kernel has returned NaN in rare runs
            assert error <= 1.1 * allowed + 1e-6 * true.norm()


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight, _ = tensors((9, 9), (5, 5))
    for needs in ((True, False), (False, True), (False, False)):
        leaves = [t.clone().requires_grad_(need) for t, need in zip((x, weight), needs, strict=True)]
        out = depthwise_conv2d(GRADIENTS, *leaves, None, 2, 2, 1, 3)
        assert out.requires_grad == any(needs)
        if any(needs):
            out.sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == list(needs)


def name_of(out: Tensor) -> str:
    return type(out.grad_fn).__name__


def test_other_convolutions_go_to_torch() -> None:
    x = torch.randn(2, 4, 9, 9, requires_grad=True)
    dense, doubled, own = (torch.randn(shape) for shape in ((4, 4, 5, 5), (8, 1, 5, 5), (4, 1, 5, 5)))
    assert name_of(depthwise_conv2d(GRADIENTS, x, dense)) == "ConvolutionBackward0"
    assert name_of(depthwise_conv2d(GRADIENTS, x, doubled, groups=4)) == "ConvolutionBackward0"
    assert name_of(depthwise_conv2d((), x, own, groups=4)) == "ConvolutionBackward0"
    assert name_of(depthwise_conv2d(("weight",), x, own, groups=4)) == "ConvolutionBackward0"
    assert (
        name_of(depthwise_conv2d(GRADIENTS, x, own[:, :, :4, :4], padding="same", groups=4)) == "ConvolutionBackward0"
    )
    assert name_of(depthwise_conv2d(GRADIENTS, x[:0], own, groups=4)) == "ConvolutionBackward0"
    elsewhere = [t.detach().to("meta").requires_grad_() for t in (x, own)]
    assert name_of(depthwise_conv2d(GRADIENTS, *elsewhere, groups=4)) == "ConvolutionBackward0", "on CPU only"
    assert "Depthwise" in name_of(depthwise_conv2d(GRADIENTS, x, own, padding="same", groups=4))
    assert "Depthwise" in name_of(depthwise_conv2d(GRADIENTS, x, weight=own, stride=2, groups=4))


def test_autocast_computes_in_bf16_and_gives_gradients_in_fp32() -> None:
    x, weight, bias = (t.float().requires_grad_() for t in tensors((9, 9), (5, 5)))
    with torch.autocast("cpu", torch.bfloat16):
        ours = depthwise_conv2d(GRADIENTS, x, weight, bias, 2, 2, 1, 3)
        native = F.conv2d(x, weight, bias, 2, 2, 1, 3)
    assert ours.dtype == torch.bfloat16
    assert torch.equal(ours, native)
    for a, b in zip(*(torch.autograd.grad(o.sum(), (x, weight, bias)) for o in (ours, native)), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)
