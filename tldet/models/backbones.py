"""Backbones by name, from torchvision and timm.

A backbone maps (B, 3, H, W) to one feature map a level and knows its ``channels`` and ``strides`` before it has
weights. ``layer_groups`` names its parts from stem to top once, for freezing, layer-wise learning rates and tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

import timm
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.models.resnet import Bottleneck

from tldet.registry import BACKBONES

Norm = Literal["frozen", "batch"]


class Backbone(nn.Module):
    """What every backbone has.

    Args:
        weights: where the pretrained weights come from (see ``tldet.transfer.sources``), or None for random ones;
            the constructor only keeps the name.
        frozen_stages: how many stages above the stem do not learn: -1 nothing is frozen, 0 the stem, 1 the stem
            and the first stage, ...
        norm: "frozen" keeps every BatchNorm's statistics and scale as they are, "batch" trains them.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]

    def __init__(self, *, weights: str | None, frozen_stages: int, norm: Norm) -> None:
        super().__init__()
        self.weights_source = weights
        self.frozen_stages = frozen_stages
        self.norm = norm

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """(name, prefixes of its module names) from stem to top; the first group is the stem."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training; frozen stages and frozen norms stay as in evaluation, statistics too."""
        super().train(mode)
        frozen = tuple(prefix for _, group in self.layer_groups()[: self.frozen_stages + 1] for prefix in group)
        for name, module in self.named_modules():
            if within(name, frozen) or (self.norm == "frozen" and isinstance(module, _BatchNorm)):
                module.training = False
        return self

    def freeze(self) -> Backbone:
        """Take the frozen stages and norms out of learning; call it once the weights are loaded."""
        frozen = tuple(prefix for _, group in self.layer_groups()[: self.frozen_stages + 1] for prefix in group)
        for name, module in self.named_modules():
            if within(name, frozen) or (self.norm == "frozen" and isinstance(module, _BatchNorm)):
                module.requires_grad_(False)
        return self.train(self.training)


def within(name: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted module or parameter name lies in one of the modules ``prefixes``."""
    return any(name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


@BACKBONES.register_module()
class TorchvisionBackbone(Backbone):
    """A ResNet, ResNeXt or Wide ResNet of torchvision, its parameter names kept (He et al. 2016).

    Args:
        name: torchvision's name, for example ``resnet50``.
        weights: see :class:`Backbone`.
        levels: which stages (1 to 4, strides 4 to 32) are given out.
        frozen_stages: see :class:`Backbone`.
        norm: see :class:`Backbone`.
        strided_conv: which convolution of a stage's first bottleneck halves the picture: the "3x3" (torchvision) or
            the first "1x1" (the paper and caffe's weights).
    """

    def __init__(
        self,
        name: str = "resnet50",
        *,
        weights: str | None = None,
        levels: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int = 1,
        norm: Norm = "frozen",
        strided_conv: Literal["3x3", "1x1"] = "3x3",
    ) -> None:
        super().__init__(weights=weights, frozen_stages=frozen_stages, norm=norm)
        whole = torchvision.models.get_model(name, weights=None)
        if not isinstance(whole, torchvision.models.ResNet):
            raise ValueError(f"{name} is no ResNet of torchvision; use TimmBackbone for other families")
        if strided_conv == "1x1":
            stride_first(whole)
        self.levels = tuple(levels)
        self.conv1, self.bn1, self.relu, self.maxpool = whole.conv1, whole.bn1, whole.relu, whole.maxpool
        self.layer1, self.layer2, self.layer3, self.layer4 = whole.layer1, whole.layer2, whole.layer3, whole.layer4
        widths = [block_width(getattr(whole, f"layer{level}")) for level in (1, 2, 3, 4)]
        self.channels = tuple(widths[level - 1] for level in self.levels)
        self.strides = tuple(2 ** (level + 1) for level in self.levels)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """Stem, layer1 to layer4."""
        return [("stem", ["conv1", "bn1"])] + [(f"layer{i}", [f"layer{i}"]) for i in (1, 2, 3, 4)]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to one (B, C, H / stride, W / stride) a level."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        outputs = []
        for level in range(1, max(self.levels) + 1):
            x = getattr(self, f"layer{level}")(x)
            if level in self.levels:
                outputs.append(x)
        return tuple(outputs)


def stride_first(resnet: torchvision.models.ResNet) -> None:
    """Move the stride of every bottleneck from its 3x3 convolution to the 1x1 before it."""
    for block in resnet.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def block_width(stage: nn.Module) -> int:
    """Output channels of a ResNet stage."""
    last = list(stage.children())[-1]
    conv = getattr(last, "conv3", None) or last.conv2
    return int(cast(Any, conv).out_channels)


@BACKBONES.register_module()
class TimmBackbone(Backbone):
    """Any network of timm that offers ``features_only``.

    Args:
        name: timm's name, for example ``tf_efficientnet_lite0``.
        weights: see :class:`Backbone`.
        levels: which of its levels are given out, by stride: 2 is stride 4, 3 stride 8, ... as in C2 to C5.
        frozen_stages: see :class:`Backbone`.
        norm: see :class:`Backbone`.
    """

    def __init__(
        self,
        name: str,
        *,
        weights: str | None = None,
        levels: Sequence[int] = (2, 3, 4, 5),
        frozen_stages: int = -1,
        norm: Norm = "frozen",
    ) -> None:
        super().__init__(weights=weights, frozen_stages=frozen_stages, norm=norm)
        if not timm.is_model(name):
            near = ", ".join(timm.list_models(f"*{name[:6]}*")[:5]) or "see timm.list_models()"
            raise ValueError(f"timm knows no model {name!r} (near: {near})")
        reductions = timm.create_model(name, features_only=True, pretrained=False).feature_info.reduction()
        wanted = [2**level for level in levels]
        missing = [stride for stride in wanted if stride not in reductions]
        if missing:
            raise ValueError(f"{name} has levels of stride {reductions}, none of {missing}")
        indices = tuple(reductions.index(stride) for stride in wanted)
        self.body = timm.create_model(name, features_only=True, pretrained=False, out_indices=indices)
        self.channels = tuple(self.body.feature_info.channels())
        self.strides = tuple(wanted)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """Everything before the first run of blocks is the stem; each block of the run a group of its own."""
        stem: list[str] = []
        groups: list[tuple[str, list[str]]] = []
        for name, child in self.body.named_children():
            if name in {"blocks", "stages", "layers"}:
                groups += [(f"{name}.{i}", [f"body.{name}.{i}"]) for i, _ in child.named_children()]
            elif not groups and not name.startswith(("layer", "stage")):
                stem.append(f"body.{name}")
            else:
                groups.append((name, [f"body.{name}"]))
        return [("stem", stem), *groups]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to one (B, C, H / stride, W / stride) a level."""
        return tuple(cast("list[Tensor]", self.body(x)))


def trainable(module: nn.Module) -> int:
    """How many parameters learn."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
