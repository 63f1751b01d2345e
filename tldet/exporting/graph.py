"""Graph of a complete detector: uint8 images and their sizes in, detections out.

Letters for shapes: B images, H and W height and width of the padded images, N detections.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from tldet.errors import ConfigError
from tldet.models.detector import Detector, normalized
from tldet.models.surgery.fuse import fuse
from tldet.models.surgery.overlay import replace_modules
from tldet.runtime.images import DIVISOR

_OUTPUTS = ("boxes", "scores", "labels", "counts", "masks")
_MAX_SIDE, _MAX_BATCH = 4096, 1024  # limits of dynamic axes


@dataclass(frozen=True)
class GraphOptions:
    """Inputs and outputs of a graph.

    Attributes:
        size: (height, width) of the padded images, multiples of 32; only an example if ``dynamic_size`` is True.
        dynamic_batch: accept 1 to 1024 images instead of 1.
        dynamic_size: accept any height and width up to 4096 that are multiples of 32.
        raw: return the outputs of the network without decoding.
    """

    size: tuple[int, int]
    dynamic_batch: bool = False
    dynamic_size: bool = False
    raw: bool = False


class DetectorGraph(nn.Module):
    """A detector as a function of tensors.

    Args:
        detector: the detector, in eval mode.
        raw: return the raw outputs of the head, flattened in the order of :func:`raw_names`.
    """

    def __init__(self, detector: Detector, *, raw: bool = False) -> None:
        super().__init__()
        self.detector, self.raw = detector, raw

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Detect objects.

        Args:
            images: (B, H, W, 3) uint8 RGB, padded at the right and at the bottom; H and W are multiples of 32.
            sizes: (B, 2) int64 (height, width) of each image within the padding.

        Returns:
            boxes (B, N, 4) float32 xyxy in pixels of ``images``, scores (B, N) float32, labels (B, N) int64, counts
            (B,) int64, the number of valid rows, and for a mask detector mask patches (B, N, S, S) float32. Rows are
            sorted by score; rows from ``counts`` on are zero.
        """
        head: Any = self.detector.head
        raw = head(self.detector.features(self._normalized(images, sizes)))
        if self.raw:
            return tuple(tensor for _, tensor in raw_tensors(raw))
        return tuple(tensor for tensor in head.decode_tensors(raw, sizes) if tensor is not None)

    def _normalized(self, images: Tensor, sizes: Tensor) -> Tensor:
        x = normalized(images.float().permute(0, 3, 1, 2), self.detector.preprocess)  # TensorRT only casts uint8
        below = torch.arange(x.shape[2], device=x.device)[:, None] < sizes[:, 0, None, None]
        beside = torch.arange(x.shape[3], device=x.device) < sizes[:, 1, None, None]
        return torch.where((below & beside)[:, None], x, 0.0)


class StageGraph(DetectorGraph):
    """A :class:`DetectorGraph` without its last operations, which returns the intermediate results."""

    def forward(self, images: Tensor, sizes: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors of :meth:`stages`."""
        return tuple(self.stages(images, sizes)[0].values())

    def stages(self, images: Tensor, sizes: Tensor) -> tuple[dict[str, Tensor], Any]:
        """Compute the intermediate results.

        Args:
            images: see :class:`DetectorGraph`.
            sizes: see :class:`DetectorGraph`.

        Returns:
            The normalized image, the levels of backbone and neck, and the raw outputs of the head, by names such as
            ``neck.0`` and in the order of computation; and the raw outputs as the head returns them.
        """
        x = self._normalized(images, sizes)
        features = list(self.detector.backbone(x))
        pyramid = self.detector.neck(list(features))
        raw = self.detector.head(pyramid)
        found = {"image": x, **_numbered("backbone", features), **_numbered("neck", pyramid)}
        known = {id(tensor) for tensor in found.values()}
        return found | {f"head.{name}": one for name, one in raw_tensors(raw) if id(one) not in known}, raw


def _numbered(name: str, tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{number}": tensor for number, tensor in enumerate(tensors)}


def raw_tensors(raw: Any, name: str = "raw") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested raw outputs with names such as ``logits_0``; other values are left out."""
    if isinstance(raw, Tensor):
        yield name, raw
    elif hasattr(raw, "_fields"):
        for field in raw._fields:
            yield from raw_tensors(getattr(raw, field), field if name == "raw" else f"{name}_{field}")
    elif isinstance(raw, (tuple, list)):
        for number, part in enumerate(raw):
            yield from raw_tensors(part, f"{name}_{number}")


def raw_names(detector: Detector, size: tuple[int, int]) -> list[str]:
    """Return the names of the raw outputs of a detector's head."""
    with torch.no_grad():
        return [name for name, _ in raw_tensors(detector.head(detector.features(torch.zeros(1, 3, *size))))]


class _PaddedConv(nn.Module):
    """Convolution with constant SAME padding, for inputs whose sides are multiples of its stride."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.conv = conv
        parts = zip(conv.kernel_size, conv.dilation, conv.stride, strict=True)
        y, x = (max((k - 1) * d + 1 - s, 0) for k, d, s in parts)
        self.pad = (x // 2, x - x // 2, y // 2, y - y // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Pad and convolve."""
        c = self.conv
        return F.conv2d(F.pad(x, self.pad), c.weight, c.bias, c.stride, 0, c.dilation, c.groups)


def prepare_for_tracing(detector: Detector, *, half: bool = False) -> Detector:
    """Fold norms and make paddings constant, in place.

    Args:
        detector: the detector.
        half: compute convolutions and matrix products in fp16.

    Returns:
        The same detector; without ``half``, its outputs are unchanged.
    """
    fuse(detector.eval())
    convs: dict[nn.Module, nn.Module] = {m: _PaddedConv(m) for m in detector.modules() if isinstance(m, Conv2dSame)}
    replace_modules(detector, convs)
    if half:
        _halve(detector)
    return detector.requires_grad_(False)


class _Half(nn.Module):
    """A module that computes in fp16 between fp32 inputs and outputs."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner.half()

    def forward(self, x: Tensor | Sequence[Tensor]) -> Any:
        """Return the outputs of the module in fp32."""
        given = x.half() if isinstance(x, Tensor) else tuple(level.half() for level in x)
        out = self.inner(given)
        return out.float() if isinstance(out, Tensor) else tuple(level.float() for level in out)


def _halve(detector: Detector) -> None:
    """Compute backbone, neck, and the convolutions and linear layers of the head in fp16, everything else in fp32."""
    head: Any = detector.head
    layers = [m for m in head.modules() if type(m) in (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, _PaddedConv)]
    inside = {m.conv for m in layers if isinstance(m, _PaddedConv)}
    units = [detector.backbone, detector.neck, *(m for m in layers if m not in inside)]
    replace_modules(detector, {unit: _Half(unit) for unit in units})


def trace_graph(
    detector: Detector, options: GraphOptions, kind: type[DetectorGraph] = DetectorGraph
) -> torch.export.ExportedProgram:
    """Trace the graph of a prepared detector.

    Args:
        detector: the detector.
        options: inputs and outputs of the graph.
        kind: :class:`DetectorGraph`, or :class:`StageGraph` for the intermediate results.

    Raises:
        ConfigError: the head has no ``decode_tensors``, or a part of the detector cannot be traced.
    """
    head: Any = detector.head
    if not options.raw and not hasattr(head, "decode_tensors"):
        raise ConfigError(
            f"head {type(head).__name__} has no decode_tensors, which export needs; --raw exports the raw outputs"
        )
    batch = 2 if options.dynamic_batch else 1
    example = (torch.zeros(batch, *options.size, 3, dtype=torch.uint8), torch.tensor([options.size] * batch))
    try:
        with torch.no_grad():
            graph = kind(detector, raw=options.raw).eval()
            return torch.export.export(graph, example, dynamic_shapes=_shapes(options), strict=False)
    except Exception as error:  # tracing raises errors of many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        hint = "; try without --dynamic size" if options.dynamic_size else ""
        raise ConfigError(f"the detector cannot be traced ({reason}){hint}") from error


def _shapes(options: GraphOptions) -> Any:
    images: dict[int, Any] = {}
    sizes: dict[int, Any] = {}
    if options.dynamic_batch:
        images[0] = sizes[0] = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    if options.dynamic_size:
        for axis, name in ((1, "rows"), (2, "columns")):
            images[axis] = DIVISOR * torch.export.Dim(name, min=1, max=_MAX_SIDE // DIVISOR)
    return (images, sizes) if images else None


def output_names(detector: Detector, options: GraphOptions) -> Sequence[str]:
    """Return the names of the outputs of a graph."""
    if options.raw:
        return raw_names(detector, options.size)
    return _OUTPUTS if detector.predicts_masks else _OUTPUTS[:4]
