"""Backbones of timm: networks with several output levels, and plain vision transformers with a single one.

The network is the submodule ``body`` with timm's parameter names. Feature maps come from timm's
``forward_intermediates``, layer groups from the ``group_matcher`` of the network.
"""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tldet.models.backbones.base import Backbone, Norm, OutNorm, ceil_div, has_batch_norm, output_norms
from tldet.models.meta_tensors import without_storage
from tldet.registry import BACKBONES

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm)
_FREE_SIZE = ("strict_img_size", False), ("dynamic_img_size", True)  # timm's two options for images of any size


class Outline(NamedTuple):
    """Properties of a timm network, known before it is built."""

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    options: dict[str, bool]  # for images of any size
    plain: bool  # all blocks have the same stride: a plain vision transformer
    normed: bool  # contains BatchNorm


@lru_cache(maxsize=32)
def network_outline(name: str) -> Outline:
    """Return the properties of a timm network without building its weights.

    Raises:
        ValueError: timm has no such network, or it has no feature maps.
    """
    import timm  # imported here because it takes time and memory

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(f"timm has no model {name!r}; nearest: {', '.join(near) or 'see timm.list_models()'}")
    try:
        net = without_storage(
            partial(timm.create_model, name, pretrained=False, features_only=True, feature_cls="getter")
        )
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"{name} of timm has no feature maps: {str(error).splitlines()[0]}") from None
    known = inspect.signature(type(net.model).__init__).parameters
    option = next(({word: value} for word, value in _FREE_SIZE if word in known), {})
    strides = tuple(net.feature_info.reduction())
    plain, normed = len(set(strides)) == 1, has_batch_norm(net)
    return Outline(strides, tuple(net.feature_info.channels()), option, plain, normed)


def parameter_groups(body: nn.Module) -> list[list[str]]:
    """Return the parameter names of each layer group from stem to top, as declared by the network."""
    from timm.models import group_parameters

    matcher = getattr(body, "group_matcher", None)
    if matcher is None:  # a few networks declare no groups: use children, and items of lists
        layers = group_parameters(body, {"lists": r"^(?:stages|blocks|layers)\.(\d+)", "stem": "^stem"})
    else:
        layers = group_parameters(body, matcher(coarse=True))
    groups = [list(names) for _, names in sorted(layers.items())]
    owners = (body.get_submodule(name.rpartition(".")[0]) for name in groups[-1])
    if len(groups) > 1 and all(isinstance(owner, _NORMS) for owner in owners):
        *groups, last, norm = groups  # a final norm is not a group of its own
        groups.append([*last, *norm])
    return groups


def prefixes(group: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the shortest dotted prefixes of all names in ``group`` and none in ``others``."""
    excluded = {".".join(name.split(".")[:i]) for name in others for i in range(1, name.count(".") + 2)}
    found: dict[str, None] = {}
    for name in group:
        steps = name.split(".")
        longer = (".".join(steps[:i]) for i in range(1, len(steps) + 1))
        found[next(prefix for prefix in longer if prefix not in excluded)] = None
    return list(found)


def body_groups(body: nn.Module) -> list[tuple[str, list[str]]]:
    """Return (name, prefixes) of each layer group of ``body`` from stem to top; see :meth:`Backbone.layer_groups`."""
    groups = parameter_groups(body)
    everything = [name for group in groups for name in group]
    found = []
    for number, group in enumerate(groups):
        own = set(group)
        inside = prefixes(group, [name for name in everything if name not in own])
        found.append(("stem" if number == 0 else inside[0], [f"body.{prefix}" for prefix in inside]))
    return found


def _create(name: str, **options: Any) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, **options)


@BACKBONES.register_module()
class TimmBackbone(Backbone):
    """Network of timm with several output levels (``features_only``).

    Args:
        name: timm's name, for example ``tf_efficientnet_lite0``; a tag after a dot selects the weights.
        weights: see :class:`Backbone`.
        out_strides: strides of the output levels.
        frozen_stages: see :class:`Backbone`.
        norm: see :class:`Backbone`.
        out_norm: "layer" adds a LayerNorm to each output level, for networks without BatchNorm (Swin, ConvNeXt).

    Raises:
        ValueError: there is no such network, or a level is missing.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        out_strides: Sequence[int] = (4, 8, 16, 32),
        frozen_stages: int = -1,
        norm: Norm = "frozen",
        out_norm: OutNorm = "none",
    ) -> None:
        super().__init__(weights=weights, frozen_stages=frozen_stages, norm=norm)
        known = network_outline(name)
        if known.plain:
            raise ValueError(
                f"{name} is a plain vision transformer with one stride, {known.strides[0]}: use ViTBackbone"
            )
        self.strides = tuple(out_strides)
        if not set(self.strides) <= set(known.strides):
            raise ValueError(f"{name} has levels of stride {list(known.strides)}, not all of {list(self.strides)}")
        levels = tuple(known.strides.index(stride) for stride in self.strides)
        features = {"features_only": True, "feature_cls": "getter", "out_indices": levels}
        net = _create(name, **features, **known.options)
        self.body, self.indices = net.model, tuple(net.out_indices)
        self.channels = tuple(known.channels[index] for index in levels)
        self.multiple = max(known.strides)
        self.out_norms = output_norms(self.channels, out_norm)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """Return the coarse layer groups of the network, for most networks the stem and the stages."""
        return body_groups(self.body)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride)) per level."""
        height, width, multiple = x.shape[-2], x.shape[-1], self.multiple
        if height % multiple == 0 and width % multiple == 0:
            return self.maps(x)
        return self.on_padded(x, (ceil_div(height, multiple) * multiple, ceil_div(width, multiple) * multiple))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps; see :meth:`Backbone.maps`."""
        shape = {"output_fmt": "NCHW", "intermediates_only": True}
        levels = cast(Any, self.body).forward_intermediates(x, indices=list(self.indices), **shape)
        return tuple(norm(level) for norm, level in zip(self.out_norms, levels, strict=True))


@BACKBONES.register_module()
class ViTBackbone(Backbone):
    """Plain vision transformer of timm (DINOv2, DINOv3, ...); outputs its last map after the final norm.

    The single map is the input of a :class:`~tldet.models.necks.simple_pyramid.SimpleFeaturePyramid`. Position
    embeddings are resized to the image. With patches of 14 pixels, the map is resampled to a grid of stride 16, because
    a pyramid needs strides that are powers of 2.

    Args:
        name: timm's name, for example ``vit_small_patch14_dinov2``; a tag after a dot selects the weights.
        weights: see :class:`Backbone`.
        frozen_stages: see :class:`Backbone`; the stem consists of patch embedding, tokens and positions, and each block
            is a group.

    Raises:
        ValueError: there is no such network, it is not a plain transformer, or it supports one image size only.
    """

    def __init__(self, name: str, *, weights: str | None = None, frozen_stages: int = -1) -> None:
        super().__init__(weights=weights, frozen_stages=frozen_stages, norm="batch")
        known = network_outline(name)
        if not known.plain:
            raise ValueError(f"{name} has levels of stride {list(known.strides)}: use TimmBackbone")
        if not known.options:
            raise ValueError(f"{name} supports one image size only")
        self.body = _create(name, num_classes=0, **known.options)
        cast(Any, self.body).prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.patch = known.strides[-1]
        self.strides = (2 ** round(math.log2(self.patch)),)
        self.channels = (known.channels[-1],)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """Return the embeddings, each block, and the final norm."""
        return body_groups(self.body)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride))."""
        sides = (self._side(x.shape[-2]), self._side(x.shape[-1]))
        return self.maps(x) if sides == (x.shape[-2], x.shape[-1]) else self.on_padded(x, sides)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps; see :meth:`Backbone.maps`."""
        shape = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
        (level,) = cast(Any, self.body).forward_intermediates(x, indices=1, **shape)
        if self.patch != self.strides[0]:
            level = F.interpolate(level, scale_factor=self.patch / self.strides[0], mode="bilinear")
        return (level,)

    def _side(self, side: int) -> int:
        """Return the smallest multiple of the patch size that covers all cells of ``side``."""
        cells = ceil_div(side, self.strides[0])
        return ceil_div(cells * self.strides[0], self.patch) * self.patch
