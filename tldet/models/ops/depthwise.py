"""Depthwise convolutions with a backward pass made of fast kernels.

On CPU, oneDNN has fast kernels for the forward pass of a depthwise convolution and for the weight gradient of a 3x3
kernel. The input gradient at stride 2 and the weight gradient of larger or dilated kernels fall back to reference
code, which takes 5 to 50 times longer in bf16. Both can be expressed through the fast kernels:

- input gradient: a convolution of stride 1 over the output gradient with ``stride - 1`` zeros between its elements,
  with the flipped kernel (Dumoulin and Visin 2016, section 4);
- weight gradient: 3x3 weight gradients over shifted inputs; a dilated convolution is first split into
  ``dilation ** 2`` undilated ones, which form one larger batch.

Shapes: B images, C channels, (H, W) input size, (P, Q) output size, (U, V) kernel size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor

Gradient = Literal["input", "weight"]
GRADIENTS: tuple[Gradient, ...] = ("input", "weight")
_BLOCK = 3  # kernel size whose weight gradient is fast
_Pair = tuple[int, int]


@dataclass(frozen=True)
class Geometry:
    """Stride, zero padding and dilation of a convolution, as (height, width)."""

    stride: _Pair = (1, 1)
    padding: _Pair = (0, 0)
    dilation: _Pair = (1, 1)

    @classmethod
    def of(cls, kernel: Sequence[int], stride: Any, padding: Any, dilation: Any) -> Geometry | None:
        """Create the geometry from arguments of ``torch.conv2d``; None if the padding is not symmetric."""
        stride, dilation = _pair(stride), _pair(dilation)
        if isinstance(padding, str):
            reach = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
            if any(r % 2 for r in reach):
                return None
            padding = tuple(r // 2 for r in reach)
        return cls(stride, _pair(padding), dilation)


@dataclass(frozen=True)
class Call:
    """Shapes of one depthwise convolution: input (B, C, H, W), kernel (U, V) and geometry."""

    shape: tuple[int, ...]
    kernel: _Pair
    geometry: Geometry


def native_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry, required: Collection[Gradient] = GRADIENTS
) -> tuple[Tensor | None, Tensor | None]:
    """Compute the gradients of a depthwise convolution with torch's own kernels (the reference).

    Args:
        grad: (B, C, P, Q) output gradient.
        x: (B, C, H, W) input.
        weight: (C, 1, U, V).
        geometry: geometry of the convolution.
        required: the gradients to compute; the others are None.
    """
    g, mask = geometry, ["input" in required, "weight" in required, False]
    found = torch.ops.aten.convolution_backward(
        grad, x, weight, None, g.stride, g.padding, g.dilation, False, (0, 0), x.shape[1], mask
    )
    return found[0], found[1]


def input_gradient(grad: Tensor, shape: Sequence[int], weight: Tensor, geometry: Geometry) -> Tensor:
    """Compute the input gradient as a depthwise convolution of stride 1; same result as :func:`native_gradients`.

    Args:
        grad: (B, C, P, Q) output gradient.
        shape: (B, C, H, W) of the input.
        weight: (C, 1, U, V).
        geometry: geometry of the convolution; :func:`supports` must hold.
    """
    g = geometry
    reach = _reach(weight.shape[2:], g)
    if g.stride != (1, 1):
        full = [shape[2 + i] + 2 * g.padding[i] - reach[i] for i in (0, 1)]
        stuffed = torch.empty((*grad.shape[:2], *full), dtype=grad.dtype, memory_format=_layout(grad)).zero_()
        stuffed[:, :, :: g.stride[0], :: g.stride[1]] = grad
        grad = stuffed
    padding = (reach[0] - g.padding[0], reach[1] - g.padding[1])
    return F.conv2d(grad, weight.flip(2, 3), None, 1, padding, g.dilation, shape[1])


def weight_gradient(grad: Tensor, x: Tensor, weight: Tensor, geometry: Geometry) -> Tensor:
    """Compute the weight gradient in 3x3 blocks over shifted inputs; same result as :func:`native_gradients`.

    Args:
        grad: (B, C, P, Q) output gradient.
        x: (B, C, H, W) input.
        weight: (C, 1, U, V); only its shape and dtype are used.
        geometry: geometry of the convolution; stride or dilation must be 1 along each axis.
    """
    (top, left), stride = geometry.padding, geometry.stride
    x = F.pad(x, (left, left, top, top))
    if geometry.dilation != (1, 1):
        x, grad = _undilated(x, grad, weight.shape[2:], geometry)
    rows, columns = (_offsets(size) for size in weight.shape[2:])
    size = [min(_BLOCK, side) for side in weight.shape[2:]]
    height, width = ((grad.shape[2 + i] - 1) * stride[i] + size[i] for i in (0, 1))
    block = weight.new_empty((weight.shape[0], 1, *size))
    result = torch.zeros_like(weight)
    for u, v in product(rows, columns):
        shifted = x[:, :, u : u + height, v : v + width]
        part = native_gradients(grad, shifted, block, Geometry(stride), GRADIENTS[1:])[1]
        result[:, :, u : u + size[0], v : v + size[1]] = cast(Tensor, part)
    return result


def supports(part: Gradient, kernel: Sequence[int], geometry: Geometry) -> bool:
    """Return True if a gradient can be rewritten and the rewritten form differs from the native one."""
    if part == "input":
        return all(pad <= reach for pad, reach in zip(geometry.padding, _reach(kernel, geometry), strict=True))
    per_axis = zip(geometry.stride, geometry.dilation, strict=True)
    return (max(kernel) > _BLOCK or geometry.dilation != (1, 1)) and all(1 in axis for axis in per_axis)


def _pair(value: Any) -> _Pair:
    values = (value,) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])


def _reach(kernel: Sequence[int], geometry: Geometry) -> _Pair:
    """Return the distance between the first and the last input element under the kernel."""
    return (geometry.dilation[0] * (kernel[0] - 1), geometry.dilation[1] * (kernel[1] - 1))


def _layout(x: Tensor) -> torch.memory_format:
    last = x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not x.is_contiguous() else torch.contiguous_format


def _offsets(side: int) -> list[int]:
    """Return the first index of each block along a kernel side: 5 -> 0, 2; 7 -> 0, 3, 4."""
    return [min(start, max(side - _BLOCK, 0)) for start in range(0, side, _BLOCK)]


def _undilated(x: Tensor, grad: Tensor, kernel: Sequence[int], geometry: Geometry) -> tuple[Tensor, Tensor]:
    """Return padded input and output gradient of an undilated convolution with the same weight gradient.

    Output (p, q) depends only on inputs whose position is congruent to it modulo the dilation. Each of these grids
    becomes a batch element. Zero padding of the gradient to whole grids does not change the result.
    """
    dilation, stride = geometry.dilation, geometry.stride
    cells = [-(-grad.shape[2 + i] // dilation[i]) for i in (0, 1)]
    wide = [(cells[i] - 1) * stride[i] + kernel[i] for i in (0, 1)]
    return _grids(x, wide, dilation), _grids(grad, cells, dilation)


def _grids(x: Tensor, cells: Sequence[int], dilation: _Pair) -> Tensor:
    """Reshape (B, C, H, W) to (B * d * e, C, *cells), zero-padded or cropped at the bottom right."""
    (batch, channels, height, width), (d, e) = x.shape, dilation
    x = F.pad(x, (0, cells[1] * e - width, 0, cells[0] * d - height))
    x = x.reshape(batch, channels, cells[0], d, cells[1], e).permute(0, 3, 5, 2, 4, 1)
    return x.reshape(batch * d * e, *cells, channels).permute(0, 3, 1, 2)


class _DepthwiseConv2d(torch.autograd.Function):
    """Function like ``torch.conv2d`` with ``parts`` of its backward pass rewritten; twice differentiable."""

    @staticmethod
    def forward(
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        geometry: Geometry,
        parts: Collection[Gradient],  # noqa: ARG004
    ) -> Tensor:
        return F.conv2d(x, weight, bias, geometry.stride, geometry.padding, geometry.dilation, x.shape[1])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        x, weight, _, ctx.geometry, ctx.parts = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,), (x, weight), g = grads, ctx.saved_tensors, ctx.geometry
        for_bias = grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None
        required = [part for part, needed in zip(GRADIENTS, ctx.needs_input_grad, strict=False) if needed]
        grad = grad.contiguous(memory_format=_layout(x))
        for_x, for_weight = native_gradients(grad, x, weight, g, [part for part in required if part not in ctx.parts])
        if "input" in required and "input" in ctx.parts:
            for_x = input_gradient(grad, x.shape, weight, g)
        if "weight" in required and "weight" in ctx.parts:
            for_weight = weight_gradient(grad, x, weight, g)
        return for_x, for_weight, for_bias, None, None


def depthwise_conv2d(parts: Collection[Gradient], x: Tensor, weight: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """Compute ``torch.conv2d`` with the ``parts`` of its backward pass rewritten if possible.

    Other calls (not depthwise, not on CPU, no gradient needed) go to torch unchanged.
    """
    call = call_of(x, weight, *args, **kwargs)
    if call is None or x.device.type != "cpu" or not x.numel():
        return F.conv2d(x, weight, *args, **kwargs)
    needed = zip(GRADIENTS, (x.requires_grad, weight.requires_grad), strict=True)
    required = [p for p, needs in needed if needs and p in parts and supports(p, call.kernel, call.geometry)]
    if not required:
        return F.conv2d(x, weight, *args, **kwargs)
    bias = kwargs["bias"] if "bias" in kwargs else next(iter(args), None)
    tensors: tuple[Tensor | None, ...] = (x, weight, bias)
    if torch.is_autocast_enabled("cpu"):
        tensors = tuple(_as_autocast(tensor) for tensor in tensors)
    return cast(Tensor, _DepthwiseConv2d.apply(*tensors, call.geometry, required))


def _as_autocast(tensor: Tensor | None) -> Tensor | None:
    eligible = tensor is not None and tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(torch.get_autocast_dtype("cpu")) if eligible and tensor is not None else tensor


def call_of(
    x: Any,
    weight: Tensor,
    bias: Tensor | None = None,  # noqa: ARG001
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Call | None:
    """Return the shapes of a ``torch.conv2d`` call if it is depthwise with one filter per channel, else None."""
    if not isinstance(x, Tensor) or not isinstance(weight, Tensor) or x.dim() != 4:
        return None
    if groups == 1 or not groups == x.shape[1] == weight.shape[0]:
        return None
    kernel = (weight.shape[2], weight.shape[3])
    geometry = Geometry.of(kernel, stride, padding, dilation)
    return Call(tuple(x.shape), kernel, geometry) if geometry else None
