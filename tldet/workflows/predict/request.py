"""Request of ``tldet predict``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tldet.inference import SCORE
from tldet.workflows.options import (
    COUNT,
    PROBABILITY,
    described,
    device_option,
    nms_option,
    option,
    precision_option,
)
from tldet.workflows.requests import Request

if TYPE_CHECKING:
    from tldet.inference.predictor import Predictor


@dataclass(frozen=True, kw_only=True)
class PredictRequest(Request):
    """Arguments of ``tldet predict``."""

    checkpoint: str | Path = field(
        kw_only=False, metadata=described("a tldet checkpoint or an exported detector", metavar="CKPT", positional=True)
    )
    inputs: str | Path | Sequence[str | Path] = field(
        kw_only=False,
        metadata=described(
            "images, folders, globs, videos or a camera number", metavar="INPUT", many=True, positional=True
        ),
    )
    out: str | Path | None = option("output directory of images and videos with drawn detections", metavar="DIR")
    json: str | Path | None = option("output file, COCO results JSON", metavar="FILE", file=True)
    coco: str | Path | None = option(
        "output file, COCO dataset JSON with the detections as annotations", metavar="FILE", file=True
    )
    csv: str | Path | None = option("output file, one row per detection", metavar="FILE", file=True)
    yolo: str | Path | None = option("output directory of YOLO labels (labels/*.txt and classes.txt)", metavar="DIR")
    crops: str | Path | None = option("output directory of cropped objects, one subfolder per class", metavar="DIR")
    overwrite: bool = option("replace existing output files (default: an error)", bool)
    annotations: str | Path | None = option(
        "COCO JSON of the input images; results use its image ids, file names and category ids", metavar="JSON"
    )
    score: float | None = option(
        f"score threshold (default: those stored in the checkpoint by tldet report --save-thresholds, else {SCORE})",
        float,
        metavar="T",
        interval=PROBABILITY,
    )
    max_pixels: int | None = option(
        "largest number of pixels of an image file (default: about 179 million)", int, metavar="N", interval=COUNT
    )
    nms_per_class: bool | None = nms_option()
    device: str = device_option()
    precision: str = precision_option("the faster one")
    on_load: Callable[[Predictor], object] | None = field(
        default=None, compare=False, repr=False, metadata={"help": "called with the predictor before the first image"}
    )

    @property
    def given_inputs(self) -> list[str]:
        """The inputs as a list of strings."""
        inputs = [self.inputs] if isinstance(self.inputs, (str, Path)) else self.inputs
        return [str(one) for one in inputs]
