"""Backbones of timm: networks that give levels of several strides, and plain vision transformers that give one map.

The network lies under ``body`` with timm's own parameter names. Maps come from timm's ``forward_intermediates``, and
the layer groups from the ``group_matcher`` that each network declares.
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
FREE_SIZE = ("strict_img_size", False), ("dynamic_img_size", True)  # timm's two words for: any size of image


class Outline(NamedTuple):
    """What a network of timm is, before it is built."""

    strides: tuple[int, ...]
    channels: tuple[int, ...]
    options: dict[str, bool]  # that make it take images of any size
    plain: bool  # all blocks have one stride: a plain vision transformer
    normed: bool  # it holds a BatchNorm


@lru_cache(maxsize=32)
def network_outline(name: str) -> Outline:
    """What the network ``name`` is; its weights are not built.

    Raises:
        ValueError: timm has no such network, or it gives no features.
    """
    import timm  # takes time and memory that other backbones do not need

    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.4)
        raise ValueError(f"timm knows no model {name!r}; nearest: {', '.join(near) or 'see timm.list_models()'}")
    try:
        net = without_storage(
            partial(timm.create_model, name, pretrained=False, features_only=True, feature_cls="getter")
        )
    except (RuntimeError, AttributeError, AssertionError, TypeError) as error:
        raise ValueError(f"{name} of timm gives no levels: {str(error).splitlines()[0]}") from None
    known = inspect.signature(type(net.model).__init__).parameters
    option = next(({word: value} for word, value in FREE_SIZE if word in known), {})
    strides = tuple(net.feature_info.reduction())
    plain, normed = len(set(strides)) == 1, has_batch_norm(net)
    return Outline(strides, tuple(net.feature_info.channels()), option, plain, normed)


def parameter_groups(body: nn.Module) -> list[list[str]]:
    """Names of the parameters of each layer from stem to top, as the network itself declares them."""
    from timm.models import group_parameters

    matcher = getattr(body, "group_matcher", None)
    if matcher is None:  # a few networks declare none: each child is a layer then, or each of a list's children
        layers = group_parameters(body, {"lists": r"^(?:stages|blocks|layers)\.(\d+)", "stem": "^stem"})
    else:
        layers = group_parameters(body, matcher(coarse=True))
    groups = [list(names) for _, names in sorted(layers.items())]
    owners = (body.get_submodule(name.rpartition(".")[0]) for name in groups[-1])
    if len(groups) > 1 and all(isinstance(owner, _NORMS) for owner in owners):
        *groups, last, norm = groups  # a last norm alone is no layer
        groups.append([*last, *norm])
    return groups


def prefixes(group: Sequence[str], others: Sequence[str]) -> list[str]:
    """The shortest dotted names that hold all of ``group`` and none of ``others``."""
    foreign = {".".join(name.split(".")[:i]) for name in others for i in range(1, name.count(".") + 2)}
    found: dict[str, None] = {}
    for name in group:
        steps = name.split(".")
        longer = (".".join(steps[:i]) for i in range(1, len(steps) + 1))
        found[next(prefix for prefix in longer if prefix not in foreign)] = None
    return list(found)


def body_groups(body: nn.Module) -> list[tuple[str, list[str]]]:
    """(name, prefixes) of each layer of ``body`` from stem to top; see :meth:`Backbone.layer_groups`."""
    groups = parameter_groups(body)
    everything = [name for group in groups for name in group]
    found = []
    for number, group in enumerate(groups):
        mine = set(group)
        inside = prefixes(group, [name for name in everything if name not in mine])
        found.append(("stem" if number == 0 else inside[0], [f"body.{prefix}" for prefix in inside]))
    return found


def _create(name: str, **options: Any) -> Any:
    import timm

    return timm.create_model(name, pretrained=False, **options)


def _add_shortcut(body: nn.Module, name: str) -> None:
    """Put a convolution and a BatchNorm in the shortcut of a ResNet's first block."""
    block: Any = next(iter(getattr(body, "layer1", nn.Sequential())), None)
    if getattr(block, "downsample", block) is not None:
        raise ValueError(f"shortcut_conv: {name} is no ResNet of basic blocks")
    channels = block.conv1.in_channels
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    block.downsample = nn.Sequential(nn.Identity(), conv, nn.BatchNorm2d(channels))


@BACKBONES.register_module()
class TimmBackbone(Backbone):
    """Any network of timm that gives levels of several strides (``features_only``).

    Args:
        name: timm's name, for example ``tf_efficientnet_lite0``; a tag behind a dot chooses its weights.
        weights: see :class:`Backbone`.
        out_strides: strides of the output levels.
        frozen_stages: see :class:`Backbone`.
        norm: see :class:`Backbone`.
        out_norm: see :func:`~tldet.models.backbones.base.output_norms`.
        shortcut_conv: put a convolution in the shortcut of the first block of a ResNet-18 or 34, as the networks of
            PaddlePaddle have it, on which RT-DETR is trained.

    Raises:
        ValueError: there is no such network, it has no such level, or no block for ``shortcut_conv``.
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
        shortcut_conv: bool = False,
    ) -> None:
        super().__init__(weights=weights, frozen_stages=frozen_stages, norm=norm)
        known = network_outline(name)
        if known.plain:
            raise ValueError(f"{name} is a plain vision transformer with one stride, {known.strides[0]}: ViTBackbone")
        self.strides = tuple(out_strides)
        if not set(self.strides) <= set(known.strides):
            raise ValueError(f"{name} has levels of stride {list(known.strides)}, not all of {list(self.strides)}")
        wanted = tuple(known.strides.index(stride) for stride in self.strides)
        features = {"features_only": True, "feature_cls": "getter", "out_indices": wanted}
        net = _create(name, **features, **known.options)
        self.body, self.indices = net.model, tuple(net.out_indices)
        if shortcut_conv:
            _add_shortcut(self.body, name)
        self.channels = tuple(known.channels[index] for index in wanted)
        self.multiple = max(known.strides)
        self.out_norms = output_norms(self.channels, out_norm)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """As the network declares its layers, coarsely: for most of them the stem and the stages."""
        return body_groups(self.body)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride)) a level."""
        height, width, multiple = x.shape[-2], x.shape[-1], self.multiple
        if height % multiple == 0 and width % multiple == 0:
            return self.maps(x)
        return self.on_padded(x, (ceil_div(height, multiple) * multiple, ceil_div(width, multiple) * multiple))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Backbone.maps`."""
        shape = {"output_fmt": "NCHW", "intermediates_only": True}
        levels = cast(Any, self.body).forward_intermediates(x, indices=list(self.indices), **shape)
        return tuple(norm(level) for norm, level in zip(self.out_norms, levels, strict=True))


@BACKBONES.register_module()
class ViTBackbone(Backbone):
    """A plain vision transformer of timm (DINOv2, DINOv3, ...): its last map, behind the network's own last norm.

    One map of one stride; a :class:`~tldet.models.necks.simple_pyramid.SimpleFeaturePyramid` makes levels of it.
    Position embeddings are resized to the image. Patches of 14 pixels would give a stride that no pyramid can halve
    or double in whole pixels: their map is resampled, cell center by cell center, to the grid of stride 16.

    Args:
        name: timm's name, for example ``vit_small_patch14_dinov2``; a tag behind a dot chooses its weights.
        weights: see :class:`Backbone`.
        frozen_stages: see :class:`Backbone`; the stem is patch embedding, tokens and positions, then come the blocks.

    Raises:
        ValueError: there is no such network, it is no plain transformer, or it takes images of one size only.
    """

    def __init__(self, name: str, *, weights: str | None = None, frozen_stages: int = -1) -> None:
        super().__init__(weights=weights, frozen_stages=frozen_stages, norm="batch")
        known = network_outline(name)
        if not known.plain:
            raise ValueError(f"{name} has levels of stride {list(known.strides)}: use TimmBackbone")
        if not known.options:
            raise ValueError(f"{name} takes images of one size only")
        self.body = _create(name, num_classes=0, **known.options)
        cast(Any, self.body).prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.patch = known.strides[-1]
        self.strides = (2 ** round(math.log2(self.patch)),)
        self.channels = (known.channels[-1],)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """The embeddings, then each block, then the last norm."""
        return body_groups(self.body)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride))."""
        sides = (self._side(x.shape[-2]), self._side(x.shape[-1]))
        return self.maps(x) if sides == (x.shape[-2], x.shape[-1]) else self.on_padded(x, sides)

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Backbone.maps`."""
        shape = {"norm": True, "output_fmt": "NCHW", "intermediates_only": True}
        (level,) = cast(Any, self.body).forward_intermediates(x, indices=1, **shape)
        if self.patch != self.strides[0]:
            level = F.interpolate(level, scale_factor=self.patch / self.strides[0], mode="bilinear")
        return (level,)

    def _side(self, side: int) -> int:
        """The least multiple of the patch that holds all cells of the stride that ``side`` needs."""
        cells = ceil_div(side, self.strides[0])
        return ceil_div(cells * self.strides[0], self.patch) * self.patch
