"""Image classifier for pre-training a backbone."""

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
    """The ``model.classifier`` section of a pre-training config, which has no effect on the exported backbone.

    Attributes:
        smoothing: label smoothing (Szegedy et al. 2016, section 7).
        mixup: parameter of the beta distribution of mixup; 0 for none.
        cutmix: parameter of the beta distribution of CutMix; 0 for none.
        dropout: dropout rate of the pooled features.

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
                limit = "0 or more" if most > 1 else "in [0, 1)"
                raise ConfigError(f"model.classifier.{name} must be {limit}, not {getattr(self, name)}")


class Classifier(nn.Module):
    """Classifier of a backbone, global average pooling and a linear layer.

    Args:
        backbone: maps (B, 3, H, W) to a tuple of feature maps with ``channels``, coarsest last.
        class_names: name of each label.
        settings: settings of training.
        preprocess: normalization of the images; a detector with this backbone needs the same.
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
        """Set training mode; submodules without trainable parameters stay in eval mode."""
        super().train(mode)
        set_frozen_eval(self)
        return self

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of normalized images (B, 3, H, W)."""
        features: Tensor = self.backbone(x)[-1]
        return cast(Tensor, self.fc(self.dropout(features.mean((2, 3)))))

    def loss(self, batch: LabeledBatch) -> dict[str, Tensor]:
        """Return the cross-entropy as ``loss_cls``; targets are smoothed, and mixed if the batch has a seed."""
        x, targets = normalized(batch.images, self.preprocess), self._targets(batch.labels)
        if batch.seed is not None:
            seed = (batch.seed, crc32("/".join(batch.image_ids).encode()))  # micro-batches of a step share its seed
            x, targets = mix_images(x, targets, seed, mixup=self.settings.mixup, cutmix=self.settings.cutmix)
        return {"loss_cls": F.cross_entropy(self.logits(x), targets)}

    def _targets(self, labels: Tensor) -> Tensor:
        """Return smoothed targets (B, K) in float32."""
        count = len(self.class_names)
        hard = F.one_hot(labels, count).float()
        return hard * (1 - self.settings.smoothing) + self.settings.smoothing / count

    @torch.no_grad()
    def predict(self, batch: LabeledBatch) -> Tensor:
        """Return the logits (B, K) in float32."""
        return self.logits(normalized(batch.images, self.preprocess)).float()

    def forward(self, batch: LabeledBatch) -> Any:
        """Run ``loss(batch)`` in training mode, otherwise ``predict(batch)``."""
        return self.loss(batch) if self.training else self.predict(batch)


def build_classifier(model: Mapping[str, Any], class_names: Sequence[str]) -> Classifier:
    """Build the classifier of the ``model`` section of a pre-training config, with random weights."""
    settings = build_settings(ClassifierSettings, model.get("classifier") or {})
    preprocess = build_settings(Preprocess, model.get("preprocess") or {})
    return Classifier(build_backbone(model["backbone"]), class_names, settings, preprocess)
