"""A small detector whose graph is traced and quantized in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tldet.exporting.files import write_export
from tldet.exporting.graph import GraphOptions, output_names, prepare_for_tracing, trace_graph
from tldet.inference.runtimes.exported import ExportedDetector, load_exported
from tldet.models.detector import Detector
from tldet.models.heads.retinanet import RetinaNetHead, RetinaSettings
from tldet.models.necks.fpn import FPN
from tldet.runtime.metadata import METADATA_VERSION
from tldet.runtime.session import INPUTS
from tldet.structures.batch import Batch
from tldet.structures.target import Target

SIZE = (64, 96)
OPTIONS = GraphOptions(SIZE)
NAMES = ("a", "b")
METADATA: dict[str, Any] = {
    "format": METADATA_VERSION, "kind": "detector", "class_names": list(NAMES), "category_ids": [1, 2],
    "input": {"short": 64, "long": 96}, "precision": "fp32", "size": list(SIZE), "batch": 1,
}  # fmt: skip


class SmallBackbone(nn.Module):
    """Levels of strides 8 and 16."""

    channels, strides = (8, 16), (8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.stage1 = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.stage2 = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        return [(name, [name]) for name in ("stem", "stage1", "stage2")]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c3 = self.stage1(self.stem(x))
        return c3, self.stage2(c3)


def small_detector() -> Detector:
    """Random weights whose scores are spread over 0..1."""
    torch.manual_seed(0)
    neck = FPN((8, 16), (8, 16), 8, "none")
    settings = RetinaSettings(sizes=((16,), (32,)), ratios=(1.0,), nms_pre=50, max_per_img=20)
    head = RetinaNetHead(8, (8, 16), 2, stacked_convs=1, settings=settings)
    nn.init.normal_(head.cls_score.weight, std=0.5)
    nn.init.zeros_(head.cls_score.bias)
    nn.init.normal_(head.bbox_pred.weight, std=0.1)
    return Detector(SmallBackbone(), neck, head, class_names=NAMES).eval()


def small_batches(count: int) -> list[Batch]:
    """Smooth random images."""
    random = torch.Generator().manual_seed(1)
    pixels = nn.functional.interpolate(255 * torch.rand(count, 3, 9, 13, generator=random), SIZE, mode="bilinear")
    nothing = Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.bool))
    return [Batch(image[None].byte(), [SIZE], [nothing], [SIZE]) for image in pixels]


def write_small(model: Detector, path: Path, format: str, *, half: bool = False) -> ExportedDetector:
    """Export a detector, which is changed, and load the file."""
    prepare_for_tracing(model, half=half)
    write_export(format, trace_graph(model, OPTIONS), path, (tuple(INPUTS), output_names(model, OPTIONS)), METADATA)
    return load_exported(path)
