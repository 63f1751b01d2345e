"""Detector: preprocessing, backbone, neck and head in one module."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from tldet.config import build, build_settings, require_ranges
from tldet.errors import ConfigError
from tldet.models.backbones import build_backbone
from tldet.models.backbones.base import set_frozen_eval
from tldet.models.boxes import clip
from tldet.models.heads.base import Head
from tldet.registry import HEADS, NECKS
from tldet.structures.batch import Batch
from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.structures.masks import InstanceMasks
from tldet.structures.target import Target
from tldet.system.device import constant


@dataclass(frozen=True)
class Preprocess:
    """The ``model.preprocess`` section: normalization of images as in the training of the backbone.

    Attributes:
        mean: mean of each channel on the scale 0..255, in the channel order of the backbone.
        std: standard deviation of each channel, on the same scale and in the same order.
        bgr: the channel order is BGR (Caffe).

    Raises:
        ConfigError: a value is out of range.
    """

    mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    bgr: bool = False

    def __post_init__(self) -> None:
        require_ranges(self, "model.preprocess.", mean="(-inf, inf)", std="(0, inf)")


def normalized(images: Tensor, to: Preprocess) -> Tensor:
    """Normalize (B, 3, H, W) RGB images in 0..255 to float32 with mean, std and channel order of ``to``."""
    if to.bgr:
        images = images.flip(1)
    x = images.to(torch.float32, memory_format=torch.channels_last, copy=True)
    mean, std = constant(to.mean, x), constant(to.std, x)
    return x.sub_(mean[:, None, None]).div_(std[:, None, None])


class Detector(nn.Module):
    """Detector: computes losses in training and detections in prediction.

    Args:
        backbone: maps (B, 3, H, W) to one feature map per level.
        neck: maps a list of feature maps, which it may empty, to the pyramid.
        head: see :class:`~tldet.models.heads.base.Head`.
        preprocess: normalization of the images.
        class_names: name of each label.
    """

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        head: nn.Module,
        preprocess: Preprocess | None = None,
        class_names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.preprocess = preprocess or Preprocess()
        self.class_names = tuple(class_names)
        self._loss_arguments = _accepted(getattr(head, "loss", lambda *_: {}), ("sizes", "seed"), 2)
        self._forward_arguments = _accepted(head.forward, ("targets", "seed"), 1)

    def train(self, mode: bool = True) -> Detector:
        """Set training mode; submodules without trainable parameters stay in eval mode."""
        super().train(mode)
        set_frozen_eval(self)
        return self

    @property
    def predicts_masks(self) -> bool:
        """True if the head predicts masks."""
        return bool(getattr(self.head, "predicts_masks", False))

    def normalize(self, batch: Batch) -> Tensor:
        """Normalize images to (B, 3, H, W) float32; padding is 0 after normalization, as in torchvision and mmdet."""
        x = normalized(batch.images, self.preprocess)
        for row, (height, width) in enumerate(batch.sizes):
            x[row, :, height:] = 0
            x[row, :, :, width:] = 0
        return x

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the pyramid of normalized images (B, 3, H, W)."""
        return cast("tuple[Tensor, ...]", self.neck(list(self.backbone(x))))

    def losses(
        self, x: Tensor, targets: Sequence[Target | Mapping[str, Any]], seed: int | None = None
    ) -> dict[str, Tensor]:
        """Compute the losses of normalized images (B, 3, H, W) without padding.

        Targets may be dicts with the fields of :class:`~tldet.structures.target.Target`; ``ignore`` is optional.

        Without a seed, anchors and regions are not sampled: all candidates count, so that losses can be compared to
        those of other toolkits (see also ``eval_loss`` in the settings of FCOS).
        """
        given = [one if isinstance(one, Target) else Target(**one) for one in targets]
        return self._loss(self.head_outputs(self.features(x), given, seed), given, whole_sizes(x), seed)

    def head_outputs(self, features: Sequence[Tensor], targets: Sequence[Target], seed: int | None) -> Any:
        """Compute the head's raw outputs for a loss; a head whose ``forward`` takes targets or seed gets them."""
        given = {"targets": _complete(targets), "seed": seed}
        return self.head(features, **{name: given[name] for name in self._forward_arguments})

    @torch.no_grad()
    def predict_tensor(self, x: Tensor) -> list[Detections]:
        """Return the detections on normalized images (B, 3, H, W) without padding, in their pixels."""
        return cast("list[Detections]", cast(Any, self.head).decode(self.head(self.features(x)), whole_sizes(x)))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses by name, scalars whose sum is minimized."""
        raw = self.head_outputs(self.features(self.normalize(batch)), batch.targets, batch.seed)
        return self._loss(raw, batch.targets, batch.sizes, batch.seed)

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Detections]:
        """Return the detections in pixels of the original images."""
        return self._decode(self.head(self.features(self.normalize(batch))), batch)

    @torch.no_grad()
    def loss_and_predict(self, batch: Batch) -> tuple[dict[str, Tensor], list[Detections]]:
        """Return losses and detections from one forward pass, for validation."""
        raw = self.head(self.features(self.normalize(batch)))
        return self._loss(raw, batch.targets, batch.sizes, batch.seed), self._decode(raw, batch)

    def forward(self, batch: Batch) -> Any:
        """Run ``loss(batch)`` in training mode, otherwise ``predict(batch)``, so that DDP can wrap the detector."""
        return self.loss(batch) if self.training else self.predict(batch)

    def _loss(self, raw: Any, targets: Sequence[Target], sizes: Sequence[Size], seed: int | None) -> dict[str, Tensor]:
        given = {"sizes": sizes, "seed": seed}
        arguments = {name: given[name] for name in self._loss_arguments}
        return cast("dict[str, Tensor]", cast(Any, self.head).loss(raw, _complete(targets), **arguments))

    def _decode(self, raw: Any, batch: Batch) -> list[Detections]:
        found = cast("list[Detections]", cast(Any, self.head).decode(raw, batch.sizes))
        sizes = zip(found, batch.sizes, batch.original_sizes, strict=True)
        return [rescale(one, size, original, self.class_names) for one, size, original in sizes]


def _complete(targets: Sequence[Target]) -> list[Target]:
    """Fill in ``ignore`` of targets without it: labels below 0 are ignored."""
    return [t if len(t.ignore) == len(t.boxes) else replace(t, ignore=t.labels < 0) for t in targets]


def _accepted(method: Callable[..., Any], names: Sequence[str], before: int) -> tuple[str, ...]:
    """Return the names among ``names`` that a method accepts as arguments after its first ``before`` ones."""
    parameters = inspect.signature(method).parameters.values()
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        return tuple(names)
    return tuple(p.name for number, p in enumerate(parameters) if p.name in names and number >= before)


def whole_sizes(x: Tensor) -> list[Size]:
    """Return the size of each image of an unpadded tensor."""
    return [(x.shape[-2], x.shape[-1])] * len(x)


def rescale(found: Detections, size: Size, original: Size, class_names: Sequence[str]) -> Detections:
    """Rescale detections from an image of ``size`` to its ``original`` size, and clip them."""
    factor = constant([original[1] / size[1], original[0] / size[0]] * 2, found.boxes)
    boxes = clip(found.boxes * factor, original)
    masks = found.masks.placed(boxes, original) if isinstance(found.masks, InstanceMasks) else None
    return replace(found, boxes=boxes, masks=masks, class_names=class_names)


def build_detector(model: Mapping[str, Any], class_names: Sequence[str] = ()) -> Detector:
    """Build the detector of the ``model`` section of a config, with random weights.

    Raises:
        ConfigError: a component rejects a value.
    """
    backbone = build_backbone(model["backbone"])
    neck = build(NECKS, model["neck"], "model.neck", in_channels=backbone.channels, in_strides=backbone.strides)
    head = build(HEADS, model["head"], "model.head", in_channels=neck.channels, strides=neck.strides)
    if getattr(head.decode, "__func__", None) is Head.decode and Head.decode_tensors is type(head).decode_tensors:
        raise ConfigError(f"model.head: head {model['head']['type']} has no decode_tensors (or decode)")
    preprocess = build_settings(Preprocess, model.get("preprocess", {}))
    return Detector(backbone, neck, head, preprocess, class_names)
