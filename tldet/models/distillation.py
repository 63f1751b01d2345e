"""A detector that learns further classes and is held to what an older one knows.

The method in order: the older detector, the teacher, looks at the very batch that is learned (Shmelkov et al. 2017,
Incremental learning of object detectors without catastrophic forgetting). Of the classes that an image was not
labeled for, what the teacher is sure of joins the image's objects, what it is not sure of becomes a region that is
neither object nor background, and where it sees nothing is background: its responses count by their strength (Feng et
al. 2022, Overcoming catastrophic forgetting in incremental object detection via elastic response distillation), with
fixed thresholds here. Besides, the pyramid is held to the teacher's (Peng et al. 2020, Faster ILOD: the term on
features). All of it happens before and beside the head, so it is the same for every head.

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

SAME_CLASS = 0.5  # IoU with an object of its own class from which a detection is that object
ANY_CLASS = 0.7  # with an object of another class: the label is right and the detection wrong
_EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class DistillSettings:
    """How a teacher is listened to.

    Attributes:
        score: from which a detection of the teacher is an object to learn.
        unsure: from which, and below ``score``, its place is neither object nor background.
        features: factor of the loss that holds the pyramid to the teacher's; 0 leaves it out.

    Raises:
        ConfigError: a value is out of range.
    """

    score: float = 0.7
    unsure: float = 0.1
    features: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.unsure <= self.score <= 1:
            raise ConfigError(f"distill: needs 0 < unsure <= score <= 1, not {self.unsure} and {self.score}")
        if not self.features >= 0:
            raise ConfigError(f"distill.features must be 0 or more, not {self.features}")


class DistilledDetector(Detector):
    """A detector whose loss in training also comes from a teacher; otherwise, and in a checkpoint, an ordinary one.

    The teacher is no part of it: neither its state nor its parameters hold anything of the teacher's. But it goes to
    the same device and memory format, and computes under the same autocast.

    Args:
        student: whose parts learn; its class names hold all of the teacher's.
        teacher: it does not learn, and stays in eval mode.
        settings: how it is listened to.

    Raises:
        ValueError: the teacher knows a class that the student does not, or sees images otherwise.
    """

    def __init__(self, student: Detector, teacher: Detector, settings: DistillSettings) -> None:
        super().__init__(student.backbone, student.neck, student.head, student.preprocess, student.class_names)
        if strange := [name for name in teacher.class_names if name not in student.class_names]:
            raise ValueError(f"the teacher knows class {strange[0]!r}, the student does not")
        if teacher.preprocess != student.preprocess:
            raise ValueError("teacher and student normalize images differently")
        self.settings = settings
        self.labels = [student.class_names.index(name) for name in teacher.class_names]  # of the teacher's, here
        self._beside = (teacher.requires_grad_(False).eval(),)  # a module in a tuple is not registered as a part

    @property
    def teacher(self) -> Detector:
        """The older detector."""
        return self._beside[0]

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
        """What ``to`` and its kin do to the tensors of a module, done to the teacher's as well."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.teacher._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """The head's losses on what is labeled and what the teacher adds, and ``loss_distill`` of the pyramid."""
        x = self.normalize(batch)
        theirs, targets = self.ask(x, batch)
        ours = self.features(x)
        losses = self._loss(self.raw(ours, targets, batch.seed), targets, batch.sizes, batch.seed)
        if not self.settings.features:
            return losses
        return {**losses, "loss_distill": self.settings.features * feature_distance(ours, theirs)}

    @torch.no_grad()
    def ask(self, x: Tensor, batch: Batch) -> tuple[tuple[Tensor, ...], list[Target]]:
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
        return features, [completed(target, one, known, self.settings) for target, one in pairs]


def completed(target: Target, found: Detections, known: Tensor, settings: DistillSettings) -> Target:
    """An image's target with what a teacher finds of the classes that the image was not labeled for.

    Of the teacher's classes nothing is unknown after it: they count as labeled.

    Args:
        target: of G objects; masks, where it has some, are (G, H, W).
        found: the teacher's D detections, in the same pixels and by the same labels.
        known: (K,) bool, the teacher's classes.
        settings: which detections count.

    Returns:
        the objects first, then the detections of at least ``score``, then with ``ignore`` set those of at least
        ``unsure``; detections of what is annotated are left out. The target itself where it was labeled for all the
        teacher knows.
    """
    if target.labeled is None or not bool((known & ~target.labeled).any()):
        return target
    count = (found.scores >= settings.unsure) & ~target.labeled[found.labels] & ~annotated(target, found)
    added = found[count]
    added = added[(added.boxes[:, 2:] > added.boxes[:, :2]).all(1)]  # nothing can be learned of a box without extent
    sure = added.scores >= settings.score
    added = added[torch.argsort((~sure).byte(), stable=True)]
    ignore = torch.cat([target.ignore, added.scores < settings.score])
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
    """(D,) bool, whether a detection is one of the annotated objects, crowd regions not counted.

    It is from an IoU of 0.5 on where the object is of its class, from 0.7 on where it is of another.
    """
    boxes, labels = target.boxes[~target.ignore], target.labels[~target.ignore]
    if not len(boxes) or not len(found):
        return torch.zeros(len(found), dtype=torch.bool, device=found.boxes.device)
    overlap: Tensor = torchvision.ops.box_iou(found.boxes, boxes)  # (D, G)
    alike = found.labels[:, None] == labels
    return ((overlap >= ANY_CLASS) | (alike & (overlap >= SAME_CLASS))).any(1)


def _masks(found: Detections, like: Tensor) -> Tensor:
    """(D, H, W) the detections' masks in the form of ``like`` (G, H, W); empty where they have none."""
    dense = found.dense_masks()
    return like.new_zeros(len(found), *like.shape[1:]) if dense is None else dense.to(like)


def feature_distance(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """How far a pyramid is from the teacher's: the squared distance as a share of the teacher's squared length.

    0 for the same pyramid and 1 for one of zeros, whatever the scale of a level; the mean over levels and images.

    Args:
        ours: L x (B, C, H, W).
        theirs: likewise.
    """
    gaps = [
        (mine.float() - other.float()).square().sum((1, 2, 3)) / (other.float().square().sum((1, 2, 3)) + _EPS)
        for mine, other in zip(ours, theirs, strict=True)
    ]
    return torch.stack(gaps).mean()
