"""A backbone that learns to tell classes of whole images apart, before it serves a detector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tldet.config import build_settings
from tldet.errors import ConfigError
from tldet.models.backbones import build_backbone
from tldet.models.backbones.base import set_frozen_eval
from tldet.models.detector import Preprocess, normalized
from tldet.models.mixing import mix_images
from tldet.structures.batch import LabeledBatch


@dataclass(frozen=True)
class ClassifierSettings:
    """The ``model.classifier`` section of a pre-training config; it shapes training, not the backbone.

    Attributes:
        smoothing: share of each target spread evenly over all classes (Szegedy et al. 2016, section 7).
        mixup: parameter of mixup's beta distribution; 0 leaves it out.
        cutmix: parameter of CutMix's; 0 leaves it out.
        dropout: share of the pooled features set to 0.

    Raises:
        ConfigError: a value is out of range.
    """

    smoothing: float = 0.1
    mixup: float = 0.2
    cutmix: float = 1.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("smoothing", 1.0), ("dropout", 1.0), ("mixup", float("inf")), ("cutmix", float("inf"))):
            if not 0 <= getattr(self, name) < most:
                limit = "0 or more" if most > 1 else "in 0..1, below 1"
                raise ConfigError(f"model.classifier.{name} must be {limit}, not {getattr(self, name)}")


class Classifier(nn.Module):
    """Images in, a loss or logits out: backbone, mean over the last map, one linear layer.

    Args:
        backbone: (B, 3, H, W) to a tuple of maps, coarsest last, of ``channels``.
        class_names: name of each label.
        settings: how it is trained.
        preprocess: normalization of the images; a detector on this backbone needs the same.
    """

    def __init__(
        self,
        backbone: nn.Module,
        class_names: Sequence[str],
        settings: ClassifierSettings | None = None,
        preprocess: Preprocess | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.class_names = tuple(class_names)
        self.settings = settings or ClassifierSettings()
        self.preprocess = preprocess or Preprocess()
        self.dropout = nn.Dropout(self.settings.dropout)
        self.fc = nn.Linear(cast(Any, backbone).channels[-1], len(self.class_names))

    def train(self, mode: bool = True) -> Classifier:
        """Switch to training; parts of which nothing learns stay as in evaluation."""
        super().train(mode)
        set_frozen_eval(self)
        return self

    def logits(self, x: Tensor) -> Tensor:
        """(B, K) of normalized images (B, 3, H, W)."""
        features: Tensor = self.backbone(x)[-1]
        return cast(Tensor, self.fc(self.dropout(features.mean((2, 3)))))

    def loss(self, batch: LabeledBatch) -> dict[str, Tensor]:
        """Cross-entropy with smoothed and, where the batch has a seed, mixed targets, as ``loss_cls``."""
        x, targets = normalized(batch.images, self.preprocess), self._targets(batch.labels)
        if batch.seed is not None:
            seed = (batch.seed, crc32("/".join(batch.image_ids).encode()))  # micro-batches of a step share its seed
            x, targets = mix_images(x, targets, seed, mixup=self.settings.mixup, cutmix=self.settings.cutmix)
        return {"loss_cls": F.cross_entropy(self.logits(x), targets)}

    def _targets(self, labels: Tensor) -> Tensor:
        """(B, K) float32: 1 - smoothing for the class, and ``smoothing / K`` for each."""
        count = len(self.class_names)
        hard = F.one_hot(labels, count).float()
        return hard * (1 - self.settings.smoothing) + self.settings.smoothing / count

    @torch.no_grad()
    def predict(self, batch: LabeledBatch) -> Tensor:
        """(B, K) float32 logits."""
        return self.logits(normalized(batch.images, self.preprocess)).float()

    def forward(self, batch: LabeledBatch) -> Any:
        """``loss(batch)`` while training, else ``predict(batch)``."""
        return self.loss(batch) if self.training else self.predict(batch)


def build_classifier(model: Mapping[str, Any], class_names: Sequence[str]) -> Classifier:
    """The classifier a pre-training config's ``model`` section describes, with random weights."""
    settings = build_settings(ClassifierSettings, model.get("classifier") or {})
    preprocess = build_settings(Preprocess, model.get("preprocess") or {})
    return Classifier(build_backbone(model["backbone"]), class_names, settings, preprocess)
