"""Evaluation of a detector during and after training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from tldet.data.eval_batches import eval_batches
from tldet.data.settings import LoaderSettings
from tldet.errors import TrainingError
from tldet.evaluation.coco import CocoEvaluator
from tldet.evaluation.columns import Type
from tldet.evaluation.report import METRICS, CocoResult
from tldet.inference.runtimes.exported import ExportedDetector
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray
from tldet.structures.target import Target
from tldet.system.out_of_memory import Smaller
from tldet.visualize.drawing import draw
from tldet.workflows.training.datasets import AnyDataset, ground_truth
from tldet.workflows.training.schema import EvalSettings

DRAWN_SCORE = 0.3  # score threshold of detections in drawn images


class Validation:
    """COCO metrics and losses of a model on a dataset.

    Args:
        dataset: the validation images.
        loader: batch size and workers.
        settings: type and engine of the evaluation.
        losses: also compute the losses.
    """

    def __init__(
        self, dataset: AnyDataset, loader: LoaderSettings, settings: EvalSettings, *, losses: bool = True
    ) -> None:
        self.dataset, self.loader, self.losses = dataset, loader, losses
        ids = [None if key < 0 else key for key in dataset.category_ids]
        kinds: list[Type] = ["segm", "bbox"] if settings.type == "segm" else ["bbox"]
        self.evaluators = [
            CocoEvaluator(ground_truth(dataset, kind), category_ids=ids, engine=settings.engine) for kind in kinds
        ]
        self.result: CocoResult | None = None
        self.drawn = 0  # number of images to draw
        self.drawings: list[ImageArray] = []

    @property
    def headline(self) -> tuple[str, ...]:
        """Metrics of the progress line."""
        return ("AP", "AP50") + (("bbox_AP",) if len(self.evaluators) > 1 else ())

    @property
    def names(self) -> tuple[str, ...]:
        """All metrics; larger is better."""
        return METRICS + tuple(f"bbox_{name}" for name in METRICS if len(self.evaluators) > 1)

    def __call__(self, model: Any) -> dict[str, float]:
        """Return the COCO metrics, for a mask model also ``bbox_AP`` etc., and ``val_loss`` etc. averaged over images.

        Raises:
            DataError: an image cannot be read.
            TrainingError: a predicted score or box is not finite.
        """
        self.drawings = []
        for evaluator in self.evaluators:
            evaluator.reset()
        sums: dict[str, float] = {}
        device = model.device if isinstance(model, ExportedDetector) else next(model.parameters()).device
        images, smaller = 0, Smaller()
        workers, pin = self.loader.worker_count(device), device.type == "cuda"

        def predict(batch: Any) -> Any:
            losses, detections = model.loss_and_predict(batch) if self.losses else ({}, model.predict(batch))
            values = torch.stack(list(losses.values())).tolist() if losses else []
            return dict(zip(losses, values, strict=True)), [one.to("cpu") for one in detections]

        for loaded in eval_batches(self.dataset, self.loader.eval_batch_size, workers=workers, pin=pin):
            for batch, (losses, detections) in smaller(predict, loaded, device):
                self._take(batch, detections)
                images += len(batch)
                for name, value in losses.items():
                    sums[f"val_{name}"] = sums.get(f"val_{name}", 0.0) + value * len(batch)
        self.finish()
        assert self.result is not None
        boxes = [self.result.bbox] if self.result.bbox else []
        numbers = {f"bbox_{name}": value for result in boxes for name, value in result.numbers().items()}
        means = {name: value / max(images, 1) for name, value in sums.items()}
        return {**self.result.numbers(), **numbers, **({"val_loss": sum(means.values()), **means} if means else {})}

    def finish(self) -> None:
        """Compute the metrics of the detections taken: :attr:`result`."""
        self.result, *boxes = [evaluator.compute() for evaluator in self.evaluators]
        self.result.bbox = boxes[0] if boxes else None

    def update(self, targets: Sequence[Target], found: Sequence[Detections]) -> None:
        """Take the detections on the images of some targets.

        Raises:
            TrainingError: a score or box is not finite.
        """
        for target, one in zip(targets, found, strict=True):
            if not bool(torch.isfinite(one.scores).all() & torch.isfinite(one.boxes).all()):
                raise TrainingError(
                    f"detections on image {target.image_id} are not finite: training has diverged, or the precision is "
                    "too low; lower optimizer.lr, increase schedule.warmup_steps, set training.clip_norm or use fp32"
                )
        for evaluator in self.evaluators:
            evaluator.update(targets, found)

    def _take(self, batch: Batch, found: Sequence[Detections]) -> None:
        self.update(batch.targets, found)
        for row in range(min(self.drawn - len(self.drawings), len(found))):
            self.drawings.append(_drawing(batch, row, found[row]))


def _drawing(batch: Batch, row: int, found: Detections) -> ImageArray:
    """Draw detections on an image of a batch, at the size of the original image."""
    (height, width), (whole_height, whole_width) = batch.sizes[row], batch.original_sizes[row]
    pixels = batch.images[row, :, :height, :width].to("cpu", torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return draw(np.asarray(cv2.resize(pixels, (whole_width, whole_height)), np.uint8), found.above(DRAWN_SCORE))
