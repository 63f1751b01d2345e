"""Detections on an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from tldet.runtime.detections import coco_results
from tldet.structures import masks as instance_masks
from tldet.structures.conversion import detections_table, supervision_detections
from tldet.structures.masks import Masks
from tldet.structures.selection import Rows, as_index, join_masks, labels_of
from tldet.structures.validation import validate
from tldet.system.device import to_device
from tldet.text import counted

if TYPE_CHECKING:
    from PIL.Image import Image

    from tldet.structures.image import ImageArray
    from tldet.visualize.drawing import Drawable


class DetectedObject(NamedTuple):
    """One detection.

    Attributes:
        box: (x0, y0, x1, y1) in pixels.
        score: 0..1.
        label: class, 0..K-1.
        name: class name, the label as text if no names are known.
        mask: (H, W) uint8 of 0 and 1, or None.
    """

    box: tuple[float, float, float, float]
    score: float
    label: int
    name: str
    mask: Tensor | None = None


@dataclass(repr=False)
class Detections:
    """Detections on one image, best score first.

    ``len(found)`` counts them, iteration yields each as a :class:`DetectedObject`, and ``found[rows]`` selects some.

    Attributes:
        boxes: (N, 4) float xyxy with x1 >= x0 and y1 >= y0, in pixels of the original image.
        scores: (N,) float in 0..1.
        labels: (N,) int64 in 0..K-1.
        masks: :class:`~tldet.structures.masks.InstanceMasks`, or (N, H, W) uint8 of 0 and 1, at the size of the
            original image; None for a box detector. ``dense_masks()`` and ``rles()`` serve both.
        class_names: name of each label; empty when unknown.

    Raises:
        ValueError: the fields disagree in length or shape, or x1 < x0 or y1 < y0 in a box, or a label is negative
            (values are checked on the CPU only).
        TypeError: a field is not a tensor, or not of its type.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Masks | None = None
    class_names: Sequence[str] = field(default=())

    def __post_init__(self) -> None:
        validate(self)

    @classmethod
    def empty(cls, class_names: Sequence[str] = ()) -> Detections:
        """Create detections without any object."""
        return cls(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), class_names=class_names)

    @classmethod
    def merge(cls, several: Sequence[Detections]) -> Detections:
        """Join detections on the same image, best score first; nothing is suppressed.

        Raises:
            ValueError: their class names differ, or only some of them have masks.
        """
        if not several:
            return cls.empty()
        names = {tuple(one.class_names) for one in several}
        if len(names) > 1:
            raise ValueError(f"class names differ: {' / '.join(', '.join(one) or 'none' for one in sorted(names))}")
        columns = ("boxes", "scores", "labels")
        boxes, scores, labels = (torch.cat([getattr(one, name) for one in several]) for name in columns)
        joined = cls(boxes, scores, labels, join_masks([one.masks for one in several]), several[0].class_names)
        return joined[joined.scores.argsort(descending=True, stable=True)]

    def __len__(self) -> int:
        return len(self.boxes)

    def __iter__(self) -> Iterator[DetectedObject]:
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names(), strict=True)
        for row, (box, score, label, name) in enumerate(rows):
            mask = None if self.masks is None else instance_masks.dense(self.masks[row : row + 1])[0]
            yield DetectedObject((box[0], box[1], box[2], box[3]), score, label, name, mask)

    def __getitem__(self, rows: Rows) -> Detections:
        """Select detections by a bool mask, indices (tensor, array, list or one number) or a slice.

        Raises:
            IndexError: an index is out of range, or a mask has another length.
        """
        chosen = as_index(rows, len(self))
        masks = None if self.masks is None else self.masks[chosen]
        boxes, scores, labels = self.boxes[chosen], self.scores[chosen], self.labels[chosen]
        return replace(self, boxes=boxes, scores=scores, labels=labels, masks=masks)

    def filter(
        self,
        *,
        score: float | None = None,
        classes: Sequence[int | str] | int | str | None = None,
        rows: Rows | None = None,
    ) -> Detections:
        """Select the detections that meet all conditions.

        Args:
            score: score threshold; scores equal to it are kept.
            classes: labels or class names, or one of them.
            rows: bool mask, indices or slice, as in ``found[rows]``; applied first.

        Raises:
            ValueError: a class name is unknown.
            IndexError: an index is out of range, or a mask has another length.
        """
        found = self if rows is None else self[rows]
        if score is not None:
            found = found.above(score)
        if classes is not None:
            labels = torch.tensor(labels_of(classes, self.class_names), dtype=torch.int64, device=self.labels.device)
            found = found[torch.isin(found.labels, labels)]
        return found

    def __repr__(self) -> str:
        return f"Detections({self._summary()})"

    def _summary(self) -> str:
        if not len(self):
            return "0 objects"
        kinds = ", ".join(f"{number} {name}" for name, number in Counter(self.names()).most_common(5))
        more = ", ..." if len(set(self.labels.tolist())) > 5 else ""
        low, high = float(self.scores.min()), float(self.scores.max())
        masks = "; masks" if self.masks is not None else ""
        return f"{counted(len(self), 'object')}: {kinds}{more}; scores {low:.2f} to {high:.2f}{masks}"

    def _repr_html_(self) -> str:
        return detections_table(self, self._summary())

    def draw(self, image: Drawable, *, scores: bool = True) -> ImageArray:
        """Draw boxes, masks and labels on a copy of the image.

        Args:
            image: the original image: a path, a PIL image, or a (H, W, 3) uint8 RGB array.
            scores: also write the scores.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            DataError: the image cannot be read.
        """
        from tldet.visualize.drawing import draw

        return draw(image, self, scores=scores)

    def plot(self, image: Drawable, *, scores: bool = True) -> Image:
        """Draw as :meth:`draw`; return a PIL image, which notebooks show."""
        from PIL import Image

        return Image.fromarray(self.draw(image, scores=scores))

    def save(
        self,
        path: str | PathLike[str],
        *,
        image_id: int | str = 1,
        file_name: str = "",
        category_ids: Sequence[int] | None = None,
    ) -> None:
        """Write the detections as COCO results (``.json``) or as a table (``.csv``).

        Args:
            path: output file.
            image_id: id of the image in the dataset.
            file_name: file name of the image, for the table.
            category_ids: category id of each label in the dataset; None writes the labels.

        Raises:
            DataError: the file cannot be written, or has another extension.
        """
        from tldet.coco.results import write_results

        count = int(self.labels.max()) + 1 if len(self) else 0
        records = self.to_coco(image_id, range(count) if category_ids is None else category_ids)
        named = zip(records, self.names(), strict=True)
        write_results(path, [{**record, "file_name": file_name, "category_name": name} for record, name in named])

    def above(self, score: float) -> Detections:
        """Select the detections with a score of at least ``score``."""
        return self[self.scores >= score]

    def to(self, device: torch.device | str) -> Detections:
        """Return the same detections on ``device``."""
        held = [] if self.masks is None else instance_masks.tensors(self.masks)
        boxes, scores, labels, *held = to_device([self.boxes, self.scores, self.labels, *held], device)
        masks = None if self.masks is None else instance_masks.with_tensors(self.masks, held)
        return replace(self, boxes=boxes, scores=scores, labels=labels, masks=masks)

    def names(self) -> list[str]:
        """Return the class name of each detection; its label as text if no names are known."""
        known = self.class_names
        return [known[i] if i < len(known) else str(i) for i in self.labels.tolist()]

    def dense_masks(self) -> Tensor | None:
        """Return the masks as (N, H, W) uint8 of 0 and 1 (N * H * W bytes), or None."""
        return None if self.masks is None else instance_masks.dense(self.masks)

    def rles(self) -> list[dict[str, Any]] | None:
        """Return one COCO RLE per mask, or None; they are encoded one at a time."""
        return None if self.masks is None else instance_masks.rles(self.masks)

    def to_dicts(self) -> list[dict[str, Any]]:
        """Convert to one dict per detection: ``box`` (xyxy), ``score``, ``label``, ``name``."""
        rows = zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), self.names(), strict=True)
        return [{"box": box, "score": score, "label": label, "name": name} for box, score, label, name in rows]

    def to_coco(self, image_id: int | str, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """Convert to COCO results (bbox is ``[x, y, width, height]``), with an RLE ``segmentation`` if there are masks.

        Args:
            image_id: id of the image in the dataset.
            category_ids: category id of each label in the dataset.
        """
        return coco_results(self, image_id, category_ids, self.rles())

    def to_supervision(self) -> Any:
        """Convert to ``supervision.Detections`` (needs the package ``supervision``)."""
        return supervision_detections(self)
