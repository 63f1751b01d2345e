"""The values that travel: :class:`Target`, :class:`Detections`, :class:`Batch`; in pre-training :class:`LabelledBatch`.

Pixels are continuous coordinates: the picture spans ``[0, width] x [0, height]`` and a box is ``[x0, y0, x1, y1]``.
Sizes are always ``(height, width)``. Labels are contiguous, ``0..K-1``; category ids live outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tldet import masks as instance_masks
from tldet.device import Known, fetch
from tldet.masks import InstanceMasks, Masks

__all__ = ["Batch", "Detections", "InstanceMasks", "Size", "Target"]

Size = tuple[int, int]  # (height, width)


@dataclass
class Target:
    """The ground truth of one picture, in the pixels of the picture it travels with.

    Attributes:
        boxes: (N, 4) float32 xyxy with x1 > x0 and y1 > y0; N may be 0.
        labels: (N,) int64 in 0..K-1.
        ignore: (N,) bool, true for crowd regions and what a crop hardly shows: neither object nor background. A
            detector takes none for nothing.
        image_id: the id of the picture in its dataset.
        masks: (N, H, W) uint8 of 0 and 1, or None.
        labelled: (K,) bool, the classes whose objects are all among the boxes; that the others are absent says
            nothing. None for all.
        spared: (S, 4) xyxy boxes of what probably is an object of another class than the labelled ones, and so no
            background; a head of two stages finds them itself. None for no box.
    """

    boxes: Tensor
    labels: Tensor
    ignore: Tensor = field(default_factory=partial(torch.zeros, 0, dtype=torch.bool))
    image_id: int = 0
    masks: Tensor | None = None
    labelled: Tensor | None = None
    spared: Tensor | None = None
    _known: Known | None = field(default=None, repr=False, compare=False)

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def known(self) -> Known:
        """Facts about ``ignore`` and ``labelled``, read before :meth:`to` copied them or now."""
        if self._known is None or not self._known.describes(self.ignore, self.labelled):
            return Known.of(self.ignore, self.labelled)
        return self._known

    @property
    def partial(self) -> bool:
        """Whether some class was not labelled on the picture."""
        return self.labelled is not None and self.known.partial

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Target:
        """The same target on ``device``."""
        moved: dict[str, Any] = {name: t.to(device, non_blocking=non_blocking) for name, t in self._tensors().items()}
        objects, crowds = (one.to(device, non_blocking=non_blocking) for one in self.known[2:4])
        known = Known(moved["ignore"], moved.get("labelled"), objects, crowds, self.partial)
        return replace(self, **moved, _known=known)

    def pin_memory(self) -> Target:
        """The same target in pinned memory."""
        pinned: dict[str, Any] = {name: t.pin_memory() for name, t in self._tensors().items()}
        return replace(self, **pinned)

    def _tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}


@dataclass
class Detections:
    """What a detector found on one picture, best score first.

    Attributes:
        boxes: (N, 4) float32 xyxy with x1 >= x0 and y1 >= y0, in pixels of the original picture.
        scores: (N,) float32 in 0..1.
        labels: (N,) int64 in 0..K-1.
        masks: :class:`~tldet.masks.InstanceMasks`, or (N, H, W) uint8 of 0 and 1, at the size of the original picture;
            None for a detector of boxes. ``dense_masks()`` and ``rles()`` serve both.
        class_names: name of each label; empty when unknown.

    Raises:
        ValueError: the fields disagree in length or shape, or a box is upside down (checked on the host only).
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Masks | None = None
    class_names: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4):
            raise ValueError(f"boxes must be (N, 4), not {tuple(self.boxes.shape)}")
        for name in ("scores", "labels"):
            shape = tuple(getattr(self, name).shape)
            if shape != (count,):
                raise ValueError(f"{name} must be ({count},) like the boxes, not {shape}")
        if self.masks is not None:
            shape = tuple((self.masks if isinstance(self.masks, Tensor) else self.masks.patches).shape)
            if len(shape) != 3 or shape[0] != count:
                raise ValueError(f"masks must be ({count}, H, W), not {shape}")
        if count and self.boxes.device.type == "cpu" and bool((self.boxes[:, 2:] < self.boxes[:, :2]).any()):
            row = int((self.boxes[:, 2:] < self.boxes[:, :2]).any(1).nonzero()[0])
            raise ValueError(f"box {row} is upside down: {self.boxes[row].tolist()}")

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, rows: Tensor | slice) -> Detections:
        """The rows chosen by a bool mask, an index tensor or a slice."""
        if isinstance(rows, Tensor) and rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()  # once, not for every field
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], masks=masks)

    def above(self, score: float) -> Detections:
        """The detections that score at least ``score``."""
        return self[self.scores >= score]

    def to(self, device: torch.device | str) -> Detections:
        """The same detections on ``device``."""
        held = [] if self.masks is None else instance_masks.tensors(self.masks)
        boxes, scores, labels, *held = fetch([self.boxes, self.scores, self.labels, *held], device)
        masks = None if self.masks is None else instance_masks.with_tensors(self.masks, held)
        return replace(self, boxes=boxes, scores=scores, labels=labels, masks=masks)

    def names(self) -> list[str]:
        """The class name of every row (its number where no names are known)."""
        known = self.class_names
        return [known[i] if i < len(known) else str(i) for i in self.labels.tolist()]

    def dense_masks(self) -> Tensor | None:
        """(N, H, W) uint8 of 0 and 1, or None; N * H * W bytes."""
        return None if self.masks is None else instance_masks.dense(self.masks)

    def rles(self) -> list[dict[str, Any]] | None:
        """One COCO RLE a mask, or None; made one at a time."""
        return None if self.masks is None else instance_masks.rles(self.masks)

    def to_dicts(self) -> list[dict[str, Any]]:
        """One plain dict a detection: ``box`` (xyxy), ``score``, ``label``, ``name``."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names(), strict=True)
        return [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]

    def to_coco(self, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """COCO results records (bbox is ``[x, y, width, height]``), with RLE ``segmentation`` where there are masks.

        Args:
            image_id: the dataset's own id of the picture.
            category_ids: the dataset's own category id of each label.
        """
        scores, labels = self.scores.tolist(), self.labels.tolist()
        records: list[dict[str, Any]] = []
        for row, (x0, y0, x1, y1) in enumerate(self.boxes.double().tolist()):
            record = {
                "image_id": image_id,
                "category_id": category_ids[labels[row]],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "score": scores[row],
            }
            records.append(record)
        for record, rle in zip(records, self.rles() or [], strict=self.masks is not None):
            record["segmentation"] = rle
        return records

    def to_supervision(self) -> Any:
        """The same as ``supervision.Detections`` (``pip install supervision``)."""
        import supervision

        names, masks = self.names(), self.dense_masks()
        return supervision.Detections(
            xyxy=self.boxes.cpu().numpy(),
            confidence=self.scores.cpu().numpy(),
            class_id=self.labels.cpu().numpy(),
            mask=None if masks is None else masks.bool().cpu().numpy(),
            data={"class_name": names},
        )


@dataclass
class Batch:
    """Pictures of one step, padded at the right and at the bottom to one size.

    Attributes:
        images: (B, 3, H, W) RGB, uint8 in 0..255 (or float in the same range).
        sizes: (height, width) of each picture inside the padding.
        targets: one a picture, in the pixels of ``images``.
        original_sizes: (height, width) of each picture as stored, upright; boxes are scaled back to it.
        seed: seed of the step; with the image id it determines the sampled anchors and RoIs of an image.
    """

    images: Tensor
    sizes: list[Size]
    targets: list[Target]
    original_sizes: list[Size]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_ids(self) -> list[int]:
        """The dataset's id of each picture."""
        return [target.image_id for target in self.targets]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on ``device``; copies from pinned memory do not block."""
        targets = [target.to(device, non_blocking=True) for target in self.targets]
        return replace(self, images=self.images.to(device, non_blocking=True), targets=targets)

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory (called by torch's DataLoader)."""
        targets = [target.pin_memory() for target in self.targets]
        return replace(self, images=self.images.pin_memory(), targets=targets)


@dataclass
class LabelledBatch:
    """Whole pictures with one class each, for classification.

    Attributes:
        images: (B, 3, H, W) RGB, uint8 in 0..255.
        labels: (B,) int64 in 0..K-1.
        image_ids: the name of each picture.
        seed: what random draws of this step (mixing) are seeded from; None draws nothing.
    """

    images: Tensor
    labels: Tensor
    image_ids: list[str]
    seed: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device | str) -> LabelledBatch:
        """The same batch on ``device``; copies from pinned memory do not block."""
        images, labels = (x.to(device, non_blocking=True) for x in (self.images, self.labels))
        return replace(self, images=images, labels=labels)

    def pin_memory(self) -> LabelledBatch:
        """The same batch in pinned memory (called by torch's DataLoader)."""
        return replace(self, images=self.images.pin_memory(), labels=self.labels.pin_memory())
