"""Largest batch size that fits into GPU memory, determined by training steps."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tldet.checkpoint import steps_in
from tldet.config import Config
from tldet.data.index import AnnotationIndex
from tldet.engine.precision import Precision, choose
from tldet.errors import CheckpointError, TrainingError
from tldet.models.detector import Detector, build_detector
from tldet.models.surgery.frozen_norms import fold_frozen_norms
from tldet.runtime.images import padded_size
from tldet.structures.batch import Batch
from tldet.structures.image import Size
from tldet.structures.target import Target
from tldet.system.device import pick_device
from tldet.system.out_of_memory import describe_device, free, is_out_of_memory
from tldet.transfer.freeze import FreezeSettings, freeze
from tldet.transfer.provenance import checkpoint_outline
from tldet.transfer.teacher import TeacherSettings, distilled
from tldet.workflows.training.datasets import build_dataset
from tldet.workflows.training.schema import Settings

log = logging.getLogger(__name__)
USUAL, LARGEST = 16, 64  # upper limits: by default, and with 'auto'
_SHARE = 0.9  # of free memory; the rest is reserved for fragmentation and for batches with more objects
WITHOUT_GPU = 4
STATES = 3  # tensors per trainable parameter besides its gradient: two of Adam, one of EMA


def resolve_batch_size(cfg: Config, settings: Settings, resumed: Path | None) -> int:
    """Return the batch size for ``data.loader.batch_size='auto'``: that of the resumed run, or the largest that fits.

    Raises:
        TrainingError: not even one image fits.
    """
    if resumed is not None and (kept := _batch_size_of(resumed)) is not None:
        return kept
    data = build_dataset(cfg["data"]["train"], settings.training.seed, path="data.train")
    return measure_batch_size(
        cfg["model"],
        largest_input(data.input_sizes),
        most_objects(data.index),
        precision=settings.training.precision,
        most=min(LARGEST, len(data)),
        device=pick_device(str(cfg.get("training.device") or "auto")),
        freezing=settings.freeze,
        distill=settings.distill,
        class_names=data.class_names,
    )


def _batch_size_of(folder: Path) -> int | None:
    """Return the batch size in the newest readable checkpoint of a run."""
    for path in steps_in(folder):
        try:
            return int(checkpoint_outline(path)["config"]["data"]["loader"]["batch_size"])
        except CheckpointError:
            continue
    return None


def largest_input(sizes: NDArray[np.int32]) -> Size:
    """Return the padded size of a batch with the tallest and the widest image of (I, 2) image sizes."""
    height, width = sizes.max(0).tolist()
    return padded_size((height, width))


def most_objects(index: AnnotationIndex) -> int:
    """Return the largest number of objects on an image, at least 1."""
    return int(np.diff(index.offsets).max(initial=1))


def measure_batch_size(
    model: Mapping[str, Any],
    size: Size,
    objects: int,
    *,
    precision: str = "auto",
    most: int = LARGEST,
    device: torch.device,
    freezing: FreezeSettings | None = None,
    distill: TeacherSettings | None = None,
    class_names: Sequence[str] = (),
) -> int:
    """Return the largest batch size for which a training step fits into device memory.

    Args:
        model: ``model`` section of a config.
        size: (height, width) of the images.
        objects: objects per image.
        precision: see :func:`~tldet.engine.precision.choose`.
        most: upper limit.
        device: device of the model; on a CPU, the batch size is fixed.
        freezing: frozen layers, which need less memory; those that are unfrozen later count as trainable.
        distill: the teacher of ``tldet extend``, which needs memory as well.
        class_names: classes of the model.

    Raises:
        TrainingError: not even one image fits.
    """
    if device.type == "cpu":
        batch = min(WITHOUT_GPU, most)
        log.info("batch size %d (CPU)", batch)
        return batch
    detector = build_detector(model, class_names)
    fold_frozen_norms(cast(Any, detector.backbone).freeze())
    freeze(detector, FreezeSettings() if freezing is None or freezing.unfreezes else freezing)
    if distill is not None:
        detector = distilled(detector, distill)
    detector.to(device).train()
    trial = _Trial(detector, choose(detector, device, precision), size, objects)
    batch = largest_fitting(trial.fits, most)
    if not batch:
        raise TrainingError(
            f"out of memory on {describe_device(device)} with one image of {size[1]}x{size[0]} (padded): "
            "use smaller images (data.train.transforms) or another model"
        )
    log.info(
        "batch size %d (largest that fits on %s with images of %dx%d)", batch, describe_device(device), *reversed(size)
    )
    return batch


def largest_fitting(fits: Callable[[int], bool], most: int) -> int:
    """Return the largest number from 1 to ``most`` that fits, or 0, by binary search."""
    low, high = 0, most + 1
    while high - low > 1:
        probe = min(max(1, 2 * low), most) if high > most else (low + high) // 2
        if fits(probe):
            low = probe
        else:
            high = probe
    return low


class _Trial:
    """Training steps on blank images with random boxes."""

    def __init__(self, model: Detector, precision: Precision, size: Size, objects: int) -> None:
        self.model, self.precision, self.size, self.objects = precision.prepare(model), precision, size, objects
        self.device = next(model.parameters()).device

    def fits(self, count: int) -> bool:
        """Return True if a step on ``count`` images fits, including the state of the optimizer."""
        free(self.device)
        room = self._room()
        try:
            self._step(count)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            return False
        finally:
            self.model.zero_grad(set_to_none=True)
        return room is None or torch.cuda.max_memory_reserved(self.device) <= room

    def _room(self) -> float | None:
        """Return the number of bytes that may be reserved; None if it is unknown."""
        if self.device.type != "cuda":
            return None
        torch.cuda.reset_peak_memory_stats(self.device)
        unused, _ = torch.cuda.mem_get_info(self.device)
        trained = sum(p.numel() * p.element_size() for p in self.model.parameters() if p.requires_grad)
        return torch.cuda.memory_reserved(self.device) + _SHARE * unused - STATES * trained

    def _step(self, count: int) -> None:
        batch = self._batch(count).to(self.device)
        with self.precision.autocast():
            losses: dict[str, Tensor] = self.model(batch)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
        torch.autograd.backward(total)

    def _batch(self, count: int) -> Batch:
        height, width = self.size
        images = torch.zeros(count, height, width, 3, dtype=torch.uint8).permute(0, 3, 1, 2)
        generator = torch.Generator().manual_seed(0)
        targets = []
        for number in range(count):
            corners = torch.rand(self.objects, 2, 2, generator=generator).sort(1).values  # (N, corner, xy)
            scaled = corners * torch.tensor([width - 1.0, height - 1.0])
            scaled[:, 1] += 1  # no box is empty
            labels = torch.zeros(self.objects, dtype=torch.int64)
            masks = None
            if self.model.predicts_masks:
                masks = torch.ones(self.objects, height, width, dtype=torch.uint8)
            ignore = torch.zeros(self.objects, dtype=torch.bool)
            targets.append(Target(scaled.reshape(-1, 4), labels, ignore, number, masks))
        return Batch(images, [self.size] * count, targets, [self.size] * count)
