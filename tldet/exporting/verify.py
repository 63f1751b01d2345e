"""Comparison of the detections of an exported detector with those of the checkpoint, as sets.

Letters for shapes: N detections of the checkpoint on one image, M of the exported file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torchvision.ops import box_iou

from tldet.structures.detections import Detections
from tldet.text import counted


@dataclass(frozen=True)
class Tolerance:
    """Tolerances of the comparison.

    Attributes:
        box: largest difference of box coordinates, in pixels of the network input.
        score: largest difference of scores.
        matched: minimum fraction of detections that match, of the side with more detections.
    """

    box: float
    score: float
    matched: float


def detection_distance(reference: Sequence[Detections], found: Sequence[Detections]) -> float:
    """Return the distance of two lists of detections on the same images: 0 if they are equal, 1 if no two
    detections of the same class overlap.

    The similarity of two detections of the same class is their IoU times the ratio of the lower to the higher score.
    The distance is 1 minus the mean similarity of each detection on either side to its best match on the other,
    weighted by score.
    """
    similar = total = 0.0
    for one, other in zip(reference, found, strict=True):
        total += float(one.scores.sum() + other.scores.sum())
        if len(one) and len(other):
            low = torch.minimum(one.scores[:, None], other.scores)
            ratio = low / torch.maximum(one.scores[:, None], other.scores).clamp(min=1e-9)
            pairs = box_iou(one.boxes, other.boxes) * ratio * (one.labels[:, None] == other.labels)
            similar += float((one.scores * pairs.amax(1)).sum() + (other.scores * pairs.amax(0)).sum())
    return 1 - similar / total if total else 0.0


TOLERANCES = {"fp32": Tolerance(0.05, 1e-3, 0.99), "fp16": Tolerance(2.0, 0.02, 0.9), "int8": Tolerance(8.0, 0.1, 0.5)}


@dataclass
class Comparison:
    """Counts and differences of the detections on some images.

    Attributes:
        images: number of images.
        reference: number of detections of the checkpoint.
        exported: number of detections of the exported file.
        matched: number of pairs of detections that agree within the tolerances.
        box: largest difference of a box coordinate in a pair, in pixels.
        score: largest difference of the scores in a pair.
    """

    images: int = 0
    reference: int = 0
    exported: int = 0
    matched: int = 0
    box: float = 0.0
    score: float = 0.0

    @property
    def fraction(self) -> float:
        """Fraction of detections that match, of the side with more detections; 1 if neither side has any."""
        return self.matched / max(self.reference, self.exported, 1) if self.reference or self.exported else 1.0

    def add(self, reference: Detections, found: Detections, tolerance: Tolerance) -> None:
        """Match the detections on one image one to one, best score first."""
        self.images += 1
        self.reference += len(reference)
        self.exported += len(found)
        free = torch.ones(len(found), dtype=torch.bool)
        for box, score, label in zip(reference.boxes, reference.scores, reference.labels, strict=True):
            boxes = (found.boxes - box).abs().amax(1) if len(found) else found.scores
            scores = (found.scores - score).abs()
            near = free & (found.labels == label) & (boxes <= tolerance.box) & (scores <= tolerance.score)
            if near.any():
                row = int(boxes.masked_fill(~near, torch.inf).argmin())
                free[row] = False
                self.matched += 1
                self.box, self.score = max(self.box, float(boxes[row])), max(self.score, float(scores[row]))

    def describe(self) -> str:
        """Return one line."""
        return (
            f"{self.matched:,} of {counted(max(self.reference, self.exported), 'detection')} on "
            f"{counted(self.images, 'image')} matched ({100 * self.fraction:.2f} %; "
            f"differences up to {self.box:.2g} px and {self.score:.2g} in score)"
        )


def compare_detections(
    reference: Sequence[Detections], found: Sequence[Detections], tolerance: Tolerance, into: Comparison
) -> Comparison:
    """Add the detections of some images to a comparison."""
    for one, other in zip(reference, found, strict=True):
        into.add(one, other, tolerance)
    return into
