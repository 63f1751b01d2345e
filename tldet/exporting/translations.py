"""Translation of the operators of :mod:`tldet.models.ops.graph` to ONNX."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from onnxscript import opset18 as op

from tldet.models.ops.nms import NMS_ROWS
from tldet.models.pooling import ROI_ALIGN_PYRAMID

_LEFT_OUT = -1.0  # score of boxes that are excluded from NMS


def translate_nms_rows(boxes: Any, scores: Any, groups: Any, good: Any, iou: float, keep: int) -> Any:
    """Translate :func:`tldet.models.ops.nms.nms_rows`: groups are moved apart, as in torchvision's batched NMS."""
    inside = op.Where(op.Unsqueeze(good, [2]), boxes, 0.0)
    reach = op.Add(op.ReduceMax(inside, [1, 2], keepdims=1), 1.0)  # (B, 1, 1)
    apart = op.Add(boxes, op.Mul(op.Unsqueeze(op.Cast(groups, to=1), [2]), reach))
    ranks = op.Unsqueeze(op.Where(good, scores, _LEFT_OUT), [1])  # (B, 1, N)
    limits = op.Constant(value_ints=[keep]), op.Constant(value_floats=[iou]), op.Constant(value_floats=[_LEFT_OUT / 2])
    kept = op.NonMaxSuppression(apart, ranks, *limits)  # (M, 3) image, 0, row: best first within an image
    image = op.Gather(kept, op.Constant(value_int=0), axis=1)
    row = op.Gather(kept, op.Constant(value_int=2), axis=1)
    batch = op.Shape(boxes, start=0, end=1)  # (1,)
    images = op.Range(op.Constant(value_int=0), op.Squeeze(batch), op.Constant(value_int=1))
    member = op.Cast(op.Equal(op.Unsqueeze(image, [1]), op.Unsqueeze(images, [0])), to=7)  # (M, B)
    counts = op.ReduceSum(member, [0], keepdims=0)
    starts = op.CumSum(counts, op.Constant(value_int=0), exclusive=1)
    number = op.Range(op.Constant(value_int=0), op.Squeeze(op.Shape(row)), op.Constant(value_int=1))
    position = op.Sub(number, op.Gather(starts, image))
    index = op.Concat(op.Unsqueeze(image, [1]), op.Unsqueeze(position, [1]), axis=1)
    empty = op.Expand(op.Constant(value_int=0), op.Concat(batch, op.Constant(value_ints=[keep]), axis=0))
    return op.ScatterND(empty, index, row), counts


def translate_roi_align_pyramid(
    features: Sequence[Any],
    level: Any,
    image: Any,
    boxes: Any,
    strides: Sequence[int],
    side: int,
    sampling_ratio: int,
    aligned: bool,
) -> Any:
    """Translate :func:`tldet.models.pooling.pooled_by_level`: one RoiAlign for the regions of each level."""
    mode = "half_pixel" if aligned else "output_half_pixel"
    pooled, rows = [], []
    for number, (feature, stride) in enumerate(zip(features, strides, strict=True)):
        member = op.Cast(op.Equal(level, op.Constant(value_int=number)), to=1)  # TensorRT's NonZero takes no bool
        own = op.Reshape(op.NonZero(member), [-1])
        rows.append(own)
        pooled.append(
            op.RoiAlign(
                feature,
                op.Gather(boxes, own),
                op.Gather(image, own),
                output_height=side,
                output_width=side,
                sampling_ratio=sampling_ratio,
                spatial_scale=1.0 / stride,
                coordinate_transformation_mode=mode,
            )
        )
    joined = op.Concat(*pooled, axis=0)
    return op.ScatterND(op.Expand(0.0, op.Shape(joined)), op.Unsqueeze(op.Concat(*rows, axis=0), [1]), joined)


def table() -> dict[Any, Callable[..., Any]]:
    """Return the translations by operator."""
    return {NMS_ROWS.define(): translate_nms_rows, ROI_ALIGN_PYRAMID.define(): translate_roi_align_pyramid}
