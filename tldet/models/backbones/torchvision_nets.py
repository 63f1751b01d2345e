"""Backbones of torchvision: its classification networks, cut into levels by stride, parameter names kept."""

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

TRACED = 64  # side of the image that tells strides and channels; a multiple of every stride


@dataclass(frozen=True)
class Family:
    """How the networks of one family are cut.

    Attributes:
        steps: dotted names of the modules in the order they run; ``features.*`` stands for each child of ``features``.
        stem: steps of the stem where it has the first stage's stride; 0 where all steps of the first stride are it.
        last: how many steps at the end belong to the classifier.
        nhwc: maps are (B, H, W, C) inside.
        multiple: side lengths are padded to a multiple of this; 1 where the layers round up by themselves.
        mend: changes the padding of layers so that maps have the sizes that their strides promise.
    """

    steps: tuple[str, ...] = ("features.*",)
    stem: int = 0
    last: int = 0
    nhwc: bool = False
    multiple: int = 1
    repair: Callable[[nn.Module], None] | None = None


def repair_alexnet(whole: nn.Module) -> None:
    """Pad AlexNet's first convolution by 5 and its pooling by 1, so that a map has ceil(side / stride) cells.

    Without it a map is a cell short at every stride and its cells lie up to half a stride off; with it they lie
    where ResNet's do. The weights see the same windows, some pixels further on.
    """
    for module in whole.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (11, 11):
            module.padding = (5, 5)
        elif isinstance(module, nn.MaxPool2d):
            module.padding = 1


def stride_first(resnet: nn.Module) -> None:
    """Move the stride of every bottleneck from its 3x3 convolution to the 1x1 before it.

    Raises:
        ValueError: there is no bottleneck.
    """
    blocks = [block for block in resnet.modules() if isinstance(block, torchvision.models.resnet.Bottleneck)]
    if not blocks:
        raise ValueError("strided_conv='1x1' is for ResNets of bottlenecks (resnet50 and deeper, resnext, wide_resnet)")
    for block in blocks:
        block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


RESNET = Family(("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"))
FAMILIES = {  # by the beginning of the name
    "resnet": RESNET,
    "resnext": RESNET,
    "wide_resnet": RESNET,
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
    """One module of a network, and what it gives out."""

    path: str
    stride: int
    channels: int
    normed: bool  # it holds a BatchNorm


def torchvision_names() -> list[str]:
    """Every network of torchvision that can be a backbone."""
    return [n for n in torchvision.models.list_models(module=torchvision.models) if n.startswith(tuple(FAMILIES))]


def family_of(name: str) -> Family:
    """The family of one of :func:`torchvision_names`.

    Raises:
        ValueError: torchvision has no such network, or it cannot be cut into levels.
    """
    if name not in torchvision_names():
        raise ValueError(f"{name} is no network of torchvision that gives levels; use TimmBackbone for other families")
    return next(family for beginning, family in FAMILIES.items() if name.startswith(beginning))


def network(name: str) -> nn.Module:
    """One of torchvision's networks with random weights, repaired."""
    family = family_of(name)
    whole: nn.Module = torchvision.models.get_model(name, weights=None)
    if family.repair:
        family.repair(whole)
    return whole


@lru_cache(maxsize=32)
@torch.no_grad()
def trace(name: str) -> tuple[_Step, ...]:
    """The steps of a network with their strides and channels, seen on a black image."""
    family = family_of(name)
    whole = blank(lambda: network(name)).eval()
    x = torch.zeros(1, 3, TRACED, TRACED, device="cpu")
    steps = []
    for path in _paths(whole, family):
        module = whole.get_submodule(path)
        x = module(x)
        height, channels = (x.shape[1], x.shape[3]) if family.nhwc else (x.shape[2], x.shape[1])
        steps.append(_Step(path, TRACED // height, channels, has_batch_norm(module)))
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
    """A classification network of torchvision: AlexNet, VGG, ResNet, ResNeXt, Wide ResNet, RegNet, DenseNet,
    MobileNet, EfficientNet, ConvNeXt or Swin. A level is what the last module of its stride gives out.

    Args:
        name: torchvision's name, for example ``resnet50``.
        weights: see :class:`Backbone`.
        out_strides: strides of the output levels.
        frozen_stages: see :class:`Backbone`.
        norm: see :class:`Backbone`.
        out_norm: see :func:`~tldet.models.backbones.base.output_norms`.
        strided_conv: which convolution of a ResNet stage's first bottleneck halves the image: the "3x3" (torchvision)
            or the first "1x1" (the paper and caffe's weights).

    Raises:
        ValueError: there is no such network, it has no such level, or no bottleneck to have the stride first.
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
        last = {step.stride: number for number, step in enumerate(trace(name))}  # the last one of a stride stays
        if not set(self.strides) <= set(last):
            raise ValueError(f"{name} has levels of stride {sorted(last)}, not all of {list(self.strides)}")
        self.outputs = tuple(last[stride] for stride in self.strides)
        self.steps = trace(name)[: max(self.outputs) + 1]
        self.channels = tuple(self.steps[number].channels for number in self.outputs)
        whole = network(name)
        self.strided_conv = strided_conv
        if strided_conv == "1x1":
            stride_first(whole)
        self._take(whole)
        self.out_norms = output_norms(self.channels, out_norm)

    def _take(self, whole: nn.Module) -> None:
        """Make the modules of the steps ours, under their own names."""
        for top in dict.fromkeys(step.path.partition(".")[0] for step in self.steps):
            child = getattr(whole, top)
            wanted = {step.path.split(".")[1] for step in self.steps if step.path.startswith(top + ".")}
            if wanted:
                child = nn.Sequential()
                for name in [n for n, _ in getattr(whole, top).named_children() if n in wanted]:
                    child.add_module(name, getattr(whole, top).get_submodule(name))
            self.add_module(top, child)

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """The stem, then what lies between one stride and the next, named after its last module."""
        strides = {step.path: step.stride for step in self.steps}
        stem = [step.path for step in self.steps[: self.family.stem]]
        rest = [step.path for step in self.steps[self.family.stem :]]
        runs = [stem] * bool(stem) + [list(run) for _, run in groupby(rest, key=lambda path: strides[path])]
        learning = [[p for p in run if any(True for _ in self.get_submodule(p).parameters())] for run in runs]
        groups = [run for run in learning if run]
        return [("stem", groups[0])] + [(run[-1], run) for run in groups[1:]]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride)) a level."""
        height, width, multiple = x.shape[-2], x.shape[-1], self.family.multiple
        if height % multiple == 0 and width % multiple == 0:
            return self.maps(x)
        return self.on_padded(x, (ceil_div(height, multiple) * multiple, ceil_div(width, multiple) * multiple))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Backbone.maps`."""
        outputs = []
        for number, step in enumerate(self.steps):
            x = self.get_submodule(step.path)(x)
            if number in self.outputs:
                outputs.append(x.permute(0, 3, 1, 2) if self.family.nhwc else x)
        return tuple(norm(level) for norm, level in zip(self.out_norms, outputs, strict=True))
