"""Request of ``tldet export``."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tldet.workflows.options import (
    ABOVE_0,
    COUNT,
    PROBABILITY,
    described,
    format_option,
    nms_option,
    option,
    split_option,
    voc_boxes_option,
)
from tldet.workflows.requests import Request

FORMATS = ("onnx", "openvino", "torch", "tensorrt")
EXPORT_PRECISIONS = ("fp32", "fp16", "int8")
AXES = ("batch", "size", "batch,size")


@dataclass(frozen=True, kw_only=True)
class ExportRequest(Request):
    """Arguments of ``tldet export``."""

    checkpoint: str | Path = field(
        kw_only=False, metadata=described("a tldet checkpoint", metavar="CKPT", positional=True)
    )
    format: str = field(
        kw_only=False,
        metadata=described("output format: ONNX, OpenVINO, torch.export (torch) or TensorRT", choices=FORMATS),
    )
    precision: str = option(
        "precision of backbone, neck and head layers; decoding is always fp32; int8: onnx and openvino only (default: "
        "fp32)",
        default="fp32",
        choices=EXPORT_PRECISIONS,
    )
    dynamic: str | None = option(
        "dynamic axes: batch (1 to 1024 images), size (any height and width up to 4096 that are multiples of 32), or "
        "batch,size (default: one image of a fixed size, the most frequent input size of the verification images)",
        metavar="AXES",
        choices=AXES,
    )
    raw: bool = option("export the raw network outputs, without decoding and verification", bool)
    out: str | Path | None = option("output directory (default: that of the checkpoint)", metavar="DIR")
    data: str | Path | None = option(
        "annotation file or dataset folder for verification, as for tldet test (default: test or validation split of "
        "the checkpoint's config)",
        metavar="DATA",
    )
    images: str | Path | None = option(
        "image directory of --data; without --data, an image or a folder of images on which detections are compared "
        "(default: found by file names)",
        metavar="DIR",
    )
    data_format: str | None = format_option()
    voc_boxes: Literal["continuous", "inclusive"] | None = voc_boxes_option()
    split: str | None = split_option()
    verify: bool = option("do not verify the exported file", bool, default=True)
    max_drop: float | None = option(
        "maximum allowed drop in AP (0 to 1); a larger drop is an error with exit code 1 (default: 0.001 for fp32, "
        "0.003 for fp16, 0.01 for int8)",
        float,
        interval=PROBABILITY,
        metavar="AP",
    )
    calibration: str | Path | None = option(
        "directory of calibration images for int8 (default: training split of the checkpoint's config)",
        metavar="DIR",
    )
    calibration_images: int = option(
        "number of calibration images for int8 (default: 128)", int, default=128, interval=COUNT, metavar="N"
    )
    minutes: float = option(
        "int8: time limit in minutes of the search for parts that must stay in fp32 (default: 30)",
        float,
        default=30.0,
        interval=ABOVE_0,
        metavar="MIN",
    )
    nms_per_class: bool | None = nms_option()
