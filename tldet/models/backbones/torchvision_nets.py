"""Backbones of torchvision: classification networks split into levels by stride, with unchanged parameter names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Literal, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from tldet.models.backbones.base import Backbone, Norm, OutNorm, ceil_div, has_batch_norm, output_norms
from tldet.models.meta_tensors import blank
from tldet.registry import BACKBONES

_TRACED = 64  # side of the image for measuring strides and channels; a multiple of all strides


@dataclass(frozen=True)
class Family:
    """Splitting rules of a family of networks.

    Attributes:
        steps: dotted names of the modules in execution order; ``features.*`` stands for each child of ``features``.
        stem: number of steps in the stem; 0 for all steps of the first stride.
        last: number of final steps that belong to the classifier.
        nhwc: the network computes with (B, H, W, C).
        multiple: side lengths are padded to a multiple of this; 1 if the layers round up.
        repair: changes the padding of layers so that maps have the sizes that their strides imply.
    """

    steps: tuple[str, ...] = ("features.*",)
    stem: int = 0
    last: int = 0
    nhwc: bool = False
    multiple: int = 1
    repair: Callable[[nn.Module], None] | None = None


def repair_alexnet(whole: nn.Module) -> None:
    """Pad the first convolution of AlexNet by 5 and its pooling by 1, so that maps have ceil(side / stride) cells.

    Otherwise maps lack a cell, and cell centers are off by up to half a stride. With the padding, cells are centered as
    in ResNet.
    """
    for module in whole.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (11, 11):
            module.padding = (5, 5)
        elif isinstance(module, nn.MaxPool2d):
            module.padding = 1


def stride_first(resnet: nn.Module) -> None:
    """Move the stride of each bottleneck from its 3x3 convolution to the 1x1 convolution before it.

    Raises:
        ValueError: there is no bottleneck.
    """
    blocks = [block for block in resnet.modules() if isinstance(block, torchvision.models.resnet.Bottleneck)]
    if not blocks:
        raise ValueError("strided_conv='1x1' is for ResNets of bottlenecks (resnet50 and deeper, resnext, wide_resnet)")
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


_RESNET = Family(("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"))
FAMILIES = {  # by prefix of the name
    "resnet": _RESNET,
    "resnext": _RESNET,
    "wide_resnet": _RESNET,
    "regnet": Family(("stem", "trunk_output.*")),
    "alexnet": Family(repair=repair_alexnet),
    "vgg": Family(multiple=32),
    "densenet": Family(multiple=32),
    "mobilenet_v2": Family(stem=1, last=1),
    "mobilenet_v3": Family(stem=1),
    "efficientnet": Family(stem=1, last=1),
    "convnext": Family(stem=1, multiple=32),
    "swin": Family(stem=1, nhwc=True, multiple=32),
}


class _Step(NamedTuple):
    """Module of a network with the stride and channels of its output."""

    path: str
    stride: int
    channels: int
    normed: bool  # contains BatchNorm


def torchvision_names() -> list[str]:
    """Return the names of all torchvision networks that can be backbones."""
    return [n for n in torchvision.models.list_models(module=torchvision.models) if n.startswith(tuple(FAMILIES))]


def family_of(name: str) -> Family:
    """Return the family of a network of :func:`torchvision_names`.

    Raises:
        ValueError: torchvision has no such network, or it cannot be a backbone.
    """
    if name not in torchvision_names():
        raise ValueError(f"{name} is not a supported network of torchvision; use TimmBackbone for other families")
    return next(family for prefix, family in FAMILIES.items() if name.startswith(prefix))


def network(name: str) -> nn.Module:
    """Build a torchvision network with random weights and repaired padding."""
    family = family_of(name)
    whole: nn.Module = torchvision.models.get_model(name, weights=None)
    if family.repair:
        family.repair(whole)
    return whole


@lru_cache(maxsize=32)
@torch.no_grad()
def trace(name: str) -> tuple[_Step, ...]:
    """Return the steps of a network with strides and channels, measured on an image of zeros."""
    family = family_of(name)
    whole = blank(lambda: network(name)).eval()
    x = torch.zeros(1, 3, _TRACED, _TRACED, device="cpu")
    steps = []
    for path in _paths(whole, family):
        module = whole.get_submodule(path)
        x = module(x)
        height, channels = (x.shape[1], x.shape[3]) if family.nhwc else (x.shape[2], x.shape[1])
        steps.append(_Step(path, _TRACED // height, channels, has_batch_norm(module)))
    return tuple(steps)


def _paths(whole: nn.Module, family: Family) -> list[str]:
    paths = []
    for step in family.steps:
        parent = step.removesuffix(".*")
        children = [f"{parent}.{child}" for child, _ in whole.get_submodule(parent).named_children()]
        paths += children if step.endswith(".*") else [step]
    return paths[: len(paths) - family.last]


@BACKBONES.register_module()
class TorchvisionBackbone(Backbone):
    """Classification network of torchvision: AlexNet, VGG, ResNet, ResNeXt, Wide ResNet, RegNet, DenseNet, MobileNet,
    EfficientNet, ConvNeXt or Swin. A level is the output of the last module of its stride.

    Args:
        name: torchvision's name, for example ``resnet50``.
        weights: see :class:`Backbone`.
        out_strides: strides of the output levels.
        frozen_stages: see :class:`Backbone`.
        norm: see :class:`Backbone`.
        out_norm: "layer" adds a LayerNorm to each output level, for networks without BatchNorm (Swin, ConvNeXt).
        strided_conv: convolution with stride 2 in the first bottleneck of a ResNet stage: "3x3" (torchvision) or "1x1"
            (the paper, Caffe weights).

    Raises:
        ValueError: there is no such network, a level is missing, or ``strided_conv`` is "1x1" without bottlenecks.
    """

    def __init__(
        self,
        name: str = "resnet50",
        *,
        weights: str | None = None,
        out_strides: Sequence[int] = (4, 8, 16, 32),
        frozen_stages: int = 1,
        norm: Norm = "frozen",
        out_norm: OutNorm = "none",
        strided_conv: Literal["3x3", "1x1"] = "3x3",
    ) -> None:
        super().__init__(weights=weights, frozen_stages=frozen_stages, norm=norm)
        self.family = family_of(name)
        self.strides = tuple(out_strides)
        last = {step.stride: number for number, step in enumerate(trace(name))}  # last step of each stride
        if not set(self.strides) <= set(last):
            raise ValueError(f"{name} has levels of stride {sorted(last)}, not all of {list(self.strides)}")
        self.outputs = tuple(last[stride] for stride in self.strides)
        self.steps = trace(name)[: max(self.outputs) + 1]
        self.channels = tuple(self.steps[number].channels for number in self.outputs)
        whole = network(name)
        self.strided_conv = strided_conv
        if strided_conv == "1x1":
            stride_first(whole)
        self._add_steps(whole)
        self.out_norms = output_norms(self.channels, out_norm)

    def _add_steps(self, whole: nn.Module) -> None:
        """Add the modules of the steps as submodules with their original names."""
        for top in dict.fromkeys(step.path.partition(".")[0] for step in self.steps):
            child = getattr(whole, top)
            used = {step.path.split(".")[1] for step in self.steps if step.path.startswith(top + ".")}
            if used:
                child = nn.Sequential()
                for name in [n for n, _ in getattr(whole, top).named_children() if n in used]:
                    child.add_module(name, getattr(whole, top).get_submodule(name))
            self.add_module(top, child)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """Return the stem and the modules of each stride, named after the last of them."""
        strides = {step.path: step.stride for step in self.steps}
        stem = [step.path for step in self.steps[: self.family.stem]]
        rest = [step.path for step in self.steps[self.family.stem :]]
        runs = [stem] * bool(stem) + [list(run) for _, run in groupby(rest, key=lambda path: strides[path])]
        weighted = [[p for p in run if any(True for _ in self.get_submodule(p).parameters())] for run in runs]
        groups = [run for run in weighted if run]
        return [("stem", groups[0])] + [(run[-1], run) for run in groups[1:]]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride)) per level."""
        height, width, multiple = x.shape[-2], x.shape[-1], self.family.multiple
        if height % multiple == 0 and width % multiple == 0:
            return self.maps(x)
        return self.on_padded(x, (ceil_div(height, multiple) * multiple, ceil_div(width, multiple) * multiple))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps; see :meth:`Backbone.maps`."""
        outputs = []
        for number, step in enumerate(self.steps):
            x = self.get_submodule(step.path)(x)
            if number in self.outputs:
                outputs.append(x.permute(0, 3, 1, 2) if self.family.nhwc else x)
        return tuple(norm(level) for norm, level in zip(self.out_norms, outputs, strict=True))
