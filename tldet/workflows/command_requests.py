"""Requests of ``tldet test``, ``evaluate``, ``convert``, ``models``, ``import`` and ``quickstart``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tldet.errors import ConfigError
from tldet.workflows.options import (
    ABOVE_0,
    COUNT,
    REQUIRED,
    SHARE,
    described,
    device_option,
    format_option,
    nms_option,
    option,
    overlap_option,
    overwrite_option,
    precision_option,
    split_option,
    threads_option,
    tiles_option,
)
from tldet.workflows.requests import DataOptions, Request

if TYPE_CHECKING:
    from tldet.coco.records import CocoSource
    from tldet.evaluation.columns import Type
    from tldet.evaluation.engines import Engine

DEMO_DATA = "data/digits"
CONVERT_TARGETS = ("coco", "yolo", "voc")
_ENGINE = "evaluator: hotcoco (fast, default) or pycocotools; both give bit-identical results"


@dataclass(frozen=True, kw_only=True)
class TestRequest(DataOptions):
    """Arguments of ``tldet test``."""

    __test__ = False  # no test case

    checkpoint: str | Path = field(
        kw_only=False, metadata=described("a tldet checkpoint or an exported detector", metavar="CKPT", positional=True)
    )
    data: str | Path | None = option(
        "annotation file, or dataset folder (its test split, or its validation split if there is no test split) "
        "(default: test or validation split of the checkpoint's config)",
        metavar="DATA",
    )
    images: str | Path | None = option("image directory of --data (default: found by file names)", metavar="DIR")
    split: str | None = split_option()
    on_bad_image: str | None = option(
        "if images are missing, unreadable, truncated, or differ in size from the JSON: stop (error), or report and "
        "skip them (skip) (default: setting of the checkpoint's config)",
        choices=["error", "skip"],
    )
    json: str | Path | None = option(
        "output file of the metrics, JSON; for mask detectors the mask metrics, with the box metrics under 'bbox'",
        metavar="FILE",
        file=True,
    )
    results: str | Path | None = option(
        "output file of the detections, COCO results JSON; for mask detectors with masks instead of boxes",
        metavar="FILE",
        file=True,
    )
    tiles: int | None = tiles_option()
    overlap: float = overlap_option()
    nms_per_class: bool | None = nms_option()
    engine: Engine = option(_ENGINE, default="fast", choices=["fast", "pycocotools"])
    device: str = device_option()
    precision: str = precision_option("auto, bf16 or fp16 on a GPU, fp32 on a CPU")
    threads: int | None = threads_option()
    overwrite: bool = overwrite_option()


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest(Request):
    """Arguments of ``tldet evaluate``."""

    gt: CocoSource = field(kw_only=False, metadata=described("ground truth, COCO JSON", metavar="JSON"))
    dt: CocoSource = field(kw_only=False, metadata=described("detections, COCO results JSON", metavar="JSON"))
    type: Type = option("type of detections to evaluate (default: bbox)", default="bbox", choices=["bbox", "segm"])
    engine: Engine = option(_ENGINE, default="fast", choices=["fast", "pycocotools"])
    iou: Sequence[float] = option(
        "additional evaluation at these IoU thresholds (COCO: 0.50 to 0.95)",
        float,
        metavar="T",
        many=True,
        interval=SHARE,
    )
    max_dets: Sequence[int] = option(
        "additional evaluation with one or three limits of detections per class and image (COCO: 1 10 100); AP uses "
        "the largest",
        int,
        metavar="N",
        many=True,
        interval=COUNT,
    )
    classes: Sequence[str] = option(
        "additional evaluation on these classes only: names, or a file (one name per line, JSON list or COCO JSON)",
        metavar="NAME",
        many=True,
    )
    voc: bool = option("also compute Pascal VOC 2010 mAP (IoU 0.5)", bool)
    lvis: bool = option("also compute LVIS metrics; --gt must be an LVIS annotation file", bool)
    per_image: str | Path | None = option(
        "output file, CSV with error counts per image at IoU 0.5 (of --classes, if given)", metavar="FILE", file=True
    )
    json: str | Path | None = option("output file of the metrics, JSON", metavar="FILE", file=True)
    overwrite: bool = overwrite_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(set(self.max_dets)) not in (0, 1, 3):
            raise ConfigError("--max-dets takes one or three different numbers")
        if self.voc and self.type != "bbox":
            raise ConfigError("--voc evaluates boxes; leave out --type segm")


@dataclass(frozen=True, kw_only=True)
class ConvertRequest(Request):
    """Arguments of ``tldet convert``."""

    source: str | Path = field(
        kw_only=False,
        metadata=described("dataset folder or annotation file in any supported format", metavar="SRC", positional=True),
    )
    to: Literal["coco", "yolo", "voc"] = option("format to write", default=REQUIRED, choices=CONVERT_TARGETS)
    out: str | Path = option("output directory, new or empty", default=REQUIRED, metavar="DIR")
    format: str | None = format_option()
    voc_boxes: Literal["continuous", "inclusive"] | None = option(
        "coordinates in Pascal VOC files: continuous (edges of the box), or inclusive (its first and last pixel, "
        "counted from 1) (default: detected when reading, continuous when writing)",
        choices=["continuous", "inclusive"],
    )
    images: str | Path | None = option(
        "image directory, or the video of the annotated frames (default: found by file names)", metavar="DIR"
    )
    classes: str | Path | None = option(
        "file with the names of the classes to keep, in label order: one per line, a JSON list or COCO JSON (default: "
        "all classes)",
        metavar="FILE",
    )
    link: bool = option("link to the images instead of copying them", bool)


@dataclass(frozen=True, kw_only=True)
class ModelsRequest(Request):
    """Arguments of ``tldet models``."""

    detectors: bool = option("list detectors only", bool)
    backbones: str | None = option(
        "list backbones only: a short list, or all names that match a pattern such as 'swin*'",
        metavar="PATTERN",
        const="",
    )
    json: str | Path | None = option("output file of the table, JSON", metavar="FILE", file=True)
    overwrite: bool = overwrite_option()


@dataclass(frozen=True, kw_only=True)
class ImportRequest(Request):
    """Arguments of ``tldet import``."""

    checkpoint: str | Path = field(
        kw_only=False,
        metadata=described(
            "checkpoint of MMDetection 2.x or 3.x, torchvision, D-FINE, RT-DETRv2 or transformers (.pth, .ckpt or "
            ".safetensors)",
            metavar="CKPT",
            positional=True,
        ),
    )
    out: str | Path = option("output file, a tldet checkpoint", default=REQUIRED, metavar="FILE")
    model: str | None = option(
        "architecture, for example retinanet (default: recognized by parameter names)", metavar="NAME"
    )
    classes: Sequence[str] = option(
        "class names in label order, or a file with them: one per line, a JSON list or COCO JSON (default: those of "
        "the checkpoint)",
        metavar="NAME",
        many=True,
    )
    overwrite: bool = overwrite_option()


@dataclass(frozen=True, kw_only=True)
class QuickstartRequest(Request):
    """Arguments of ``tldet quickstart``."""

    data: str | Path | None = field(
        default=None, kw_only=False, metadata=described("your dataset (default: generated digits)", metavar="DIR")
    )
    out: str | Path = option(
        "output directory (default: runs/quickstart); earlier quickstart runs in it are replaced",
        default="runs/quickstart",
        metavar="DIR",
    )
    minutes: float = option(
        "training time of the fine-tuned detector in minutes (default: 2.75); the detector from scratch is trained for "
        "as many steps",
        float,
        default=2.75,
        metavar="M",
        interval=ABOVE_0,
    )
    demo: str | Path = field(
        default=DEMO_DATA, compare=False, repr=False, metadata={"help": "directory of the generated dataset"}
    )
