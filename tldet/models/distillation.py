"""Distillation of an older detector (the teacher) into one that is trained on further classes.

The teacher runs on the training batch (Shmelkov et al. 2017, Incremental learning of object detectors without
catastrophic forgetting). For classes that are not annotated on an image, its confident detections are added to the
objects of the image, less confident ones become ignored regions, and everything else is background. Detections thus
count by their score, as in Feng et al. 2022 (Overcoming catastrophic forgetting in incremental object detection via
elastic response distillation), here with fixed thresholds. A second loss keeps the features close to those of the
teacher (Peng et al. 2020, Faster ILOD: the term on features). Both work for every head.

Letters for shapes: B images, D detections of one image, G objects of its target, H and W its sides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torchvision
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tldet.errors import ConfigError
from tldet.models.detector import Detector
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.target import Target
from tldet.system.device import send

_SAME_CLASS = 0.5  # IoU from which a detection matches an object of its class
_ANY_CLASS = 0.7  # IoU from which it matches an object of another class, whose annotation counts
_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """Settings of distillation.

    Attributes:
        score_thr: detections of the teacher with at least this score are objects.
        ignore_score_thr: detections with at least this score, but below ``score_thr``, are ignored regions.
        features: weight of the feature loss; 0 for none.

    Raises:
        ConfigError: a value is out of range.
    """

    score_thr: float = 0.7
    ignore_score_thr: float = 0.1
    features: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.ignore_score_thr <= self.score_thr <= 1:
            raise ConfigError(
                f"distill: must have 0 < ignore_score_thr <= score_thr <= 1, not "
                f"ignore_score_thr={self.ignore_score_thr}, score_thr={self.score_thr}"
            )
        if not self.features >= 0:
            raise ConfigError(f"distill.features must be 0 or more, not {self.features}")


class DistilledDetector(Detector):
    """Detector whose training loss includes distillation; in prediction and in a checkpoint an ordinary detector.

    The teacher is not a submodule: state dict and parameters do not include it. It is moved to the same device and
    memory format, and runs under the same autocast.

    Args:
        student: the trained detector; its classes include those of the teacher.
        teacher: frozen detector in eval mode.
        settings: settings of distillation.

    Raises:
        ValueError: the teacher has a class that the student lacks, or another preprocessing.
    """

    def __init__(self, student: Detector, teacher: Detector, settings: DistillSettings) -> None:
        super().__init__(student.backbone, student.neck, student.head, student.preprocess, student.class_names)
        if unknown := [name for name in teacher.class_names if name not in student.class_names]:
            raise ValueError(f"the teacher has class {unknown[0]!r}, the student has not")
        if teacher.preprocess != student.preprocess:
            raise ValueError("teacher and student normalize images differently")
        self.settings = settings
        self.labels = [
            student.class_names.index(name) for name in teacher.class_names
        ]  # teacher label -> student label
        self._teacher = (teacher.requires_grad_(False).eval(),)  # a module in a tuple is not registered as a submodule

    @property
    def teacher(self) -> Detector:
        """Older detector."""
        return self._teacher[0]

    def train(self, mode: bool = True) -> DistilledDetector:
        """Set training mode; BatchNorms of backbone and neck use running statistics, like those of the teacher.

        With batch statistics, the features of student and teacher would differ even with equal weights.
        """
        super().train(mode)
        if self.settings.features:
            for part in (self.backbone, self.neck):
                for module in part.modules():
                    if isinstance(module, _BatchNorm):
                        module.training = False
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> DistilledDetector:
        """Apply ``to`` and similar methods to the teacher too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of the head on annotations and detections of the teacher, and the feature loss."""
        x = self.normalize(batch)
        teacher_features, targets = self.run_teacher(x, batch)
        features = self.features(x)
        losses = self._loss(self.head_outputs(features, targets, batch.seed), targets, batch.sizes, batch.seed)
        if not self.settings.features:
            return losses
        return {**losses, "loss_distill": self.settings.features * feature_distance(features, teacher_features)}

    @torch.no_grad()
    def run_teacher(self, x: Tensor, batch: Batch) -> tuple[tuple[Tensor, ...], list[Target]]:
        """Return the teacher's features of normalized images (B, 3, H, W), and the targets with its detections.

        The teacher gets the padded training batch, so that both pyramids have the same size. Its detections therefore
        depend on the padding of the batch, as the student's loss does.
        """
        head: Any = self.teacher.head
        features = self.teacher.features(x)
        found: list[Detections] = head.decode(head(features), batch.sizes)
        table = send(torch.tensor(self.labels), x.device)
        renamed = [replace(one, labels=table[one.labels]) for one in found]
        known = torch.zeros(len(self.class_names), dtype=torch.bool, device=x.device).index_fill(0, table, True)
        pairs = zip(batch.targets, renamed, strict=True)
        return features, [add_detections(target, one, known, self.settings) for target, one in pairs]


def add_detections(target: Target, found: Detections, known: Tensor, settings: DistillSettings) -> Target:
    """Add detections of the teacher to the target of an image, for classes that are not annotated on it.

    All classes of the teacher count as annotated afterwards.

    Args:
        target: target with G objects; its masks are (G, H, W), if there are any.
        found: D detections of the teacher, in the same pixels and with the same labels.
        known: (K,) bool, classes of the teacher.
        settings: score thresholds.

    Returns:
        The objects, then the detections with a score of at least ``score_thr``, then those of at least
        ``ignore_score_thr``, with ``ignore`` set. Detections of annotated objects are left out. If all classes of the
        teacher are annotated on the image, the target itself.
    """
    if target.labeled is None or not bool((known & ~target.labeled).any()):
        return target
    count = (found.scores >= settings.ignore_score_thr) & ~target.labeled[found.labels] & ~annotated(target, found)
    added = found[count]
    added = added[(added.boxes[:, 2:] > added.boxes[:, :2]).all(1)]  # drop degenerate boxes
    sure = added.scores >= settings.score_thr
    added = added[torch.argsort((~sure).byte(), stable=True)]
    ignore = torch.cat([target.ignore, added.scores < settings.score_thr])
    masks = None if target.masks is None else torch.cat([target.masks, _masks(added, target.masks)])
    return replace(
        target,
        boxes=torch.cat([target.boxes, added.boxes]),
        labels=torch.cat([target.labels, added.labels]),
        ignore=ignore,
        masks=masks,
        labeled=target.labeled | known,
    )


def annotated(target: Target, found: Detections) -> Tensor:
    """Return (D,) bool: True for detections of annotated objects other than crowd regions.

    A detection matches an object of its class from an IoU of 0.5 on, an object of another class from 0.7 on.
    """
    boxes, labels = target.boxes[~target.ignore], target.labels[~target.ignore]
    if not len(boxes) or not len(found):
        return torch.zeros(len(found), dtype=torch.bool, device=found.boxes.device)
    overlap: Tensor = torchvision.ops.box_iou(found.boxes, boxes)  # (D, G)
    alike = found.labels[:, None] == labels
    return ((overlap >= _ANY_CLASS) | (alike & (overlap >= _SAME_CLASS))).any(1)


def _masks(found: Detections, like: Tensor) -> Tensor:
    """Return the masks (D, H, W) of detections in the format of ``like`` (G, H, W); empty masks if there are none."""
    dense = found.dense_masks()
    return like.new_zeros(len(found), *like.shape[1:]) if dense is None else dense.to(like)


def feature_distance(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Return the squared distance of two pyramids relative to the squared norm of the teacher's.

    It is 0 for equal pyramids and 1 for a pyramid of zeros, independent of the scale of a level; averaged over levels
    and images.

    Args:
        student: L x (B, C, H, W).
        teacher: L x (B, C, H, W).
    """
    distances = [
        (a.float() - b.float()).square().sum((1, 2, 3)) / (b.float().square().sum((1, 2, 3)) + _EPS)
        for a, b in zip(student, teacher, strict=True)
    ]
    return torch.stack(distances).mean()
