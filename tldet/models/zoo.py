"""Backbones by name, with what each needs in a config: weights, their mean and std, strides."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import timm
import torchvision

from tldet.config.check import parameters
from tldet.errors import ConfigError
from tldet.models.backbones import build_backbone
from tldet.models.backbones.timm_nets import network_outline
from tldet.models.backbones.torchvision_nets import torchvision_names, trace
from tldet.models.detector import Preprocess
from tldet.models.meta_tensors import without_storage
from tldet.plugins import lookup, names_in
from tldet.registry import BACKBONES

CURATED = (  # one line a family, small to large: what `tldet models` shows unless asked for more
    *("alexnet", "vgg16", "vgg16_bn"),
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
    *("resnext50_32x4d", "resnext101_64x4d", "wide_resnet50_2"),
    *("regnet_y_400mf", "regnet_y_3_2gf", "regnet_x_8gf"),
    *("densenet121", "densenet201"),
    *("mobilenet_v3_small", "mobilenet_v3_large"),
    *("efficientnet_lite0", "efficientnet_b0", "efficientnet_b3", "efficientnet_v2_s", "efficientnet_v2_m"),
    *("convnext_tiny", "convnext_small", "convnext_base", "convnextv2_tiny"),
    *("swin_t", "swin_s", "swin_b", "swin_v2_t", "swin_v2_s"),
    *("vit_small_patch14_dinov2", "vit_base_patch14_dinov2", "vit_small_patch16_dinov3", "vit_base_patch16_dinov3"),
    "vit_base_patch16_224",
)
LITE0 = {"efficientnet_lite0", "tf_efficientnet_lite0"}  # its weights can be had as a package


@dataclass(frozen=True)
class Found:
    """A backbone that a name stands for.

    Attributes:
        section: ``type`` and ``name`` of its section in a config, ``out_norm`` if it needs one; of a registered
            backbone only ``type``.
        strides: of the levels it can give out; one of them for a plain vision transformer.
        weights: the source of its pretrained weights; None where nobody trained it.
        mean: of each channel that the weights were trained with, on the scale 0..255.
        std: likewise.
    """

    section: dict[str, Any]
    strides: tuple[int, ...]
    weights: str | None
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def name(self) -> str:
        """Name of the network."""
        return str(self.section.get("name", self.section["type"]))

    @property
    def registered(self) -> bool:
        """True for a class of the registry, False for a network of torchvision or timm."""
        return "name" not in self.section

    @property
    def plain(self) -> bool:
        """Whether it gives one map only, of which a neck has to make levels."""
        return bool(self.section["type"] == "ViTBackbone")

    def config(self, strides: Sequence[int], *, scratch: bool = False) -> dict[str, Any]:
        """The whole section for levels of these strides: the stem is frozen unless it starts from random weights."""
        random = scratch or self.weights is None
        section = {**self.section, "weights": None if random else self.weights, "frozen_stages": -1 if random else 0}
        if self.plain:
            return section
        norm = "batch" if random else "frozen"
        return {**section, "out_strides": list(strides), "norm": norm}


def find_backbone(name: str) -> Found:
    """Find a backbone by name: a class of the registry, else of torchvision, else of timm (``timm:NAME``: only there).

    A tag behind a dot chooses the weights: ``resnet50.IMAGENET1K_V1``, ``convnext_tiny.fb_in22k``.

    Raises:
        ConfigError: nobody has it, or it cannot be a backbone; the message lists the nearest names.
    """
    library, _, rest = name.rpartition(":")
    arch, _, tag = rest.partition(".")
    try:
        if library == "" and _is_registered(rest):
            return _of_registry(rest)
        if rest in LITE0 and library in {"", "package"}:
            return _of_timm("tf_efficientnet_lite0", "package:efficientnet_lite0")
        if library in {"", "torchvision"} and arch in torchvision_names() and (not tag or tag in _tags(arch)):
            return _of_torchvision(arch, tag)
        if library in {"", "timm"} and timm.is_model(arch) and (not tag or rest in _trained(arch)):
            return _of_timm(rest)
    except ValueError as error:
        raise ConfigError(f"backbone {name!r}: {error}") from None
    raise ConfigError(f"backbone {name!r}: neither torchvision nor timm has it; nearest: {', '.join(_nearest(rest))}")


def backbone_names() -> list[str]:
    """Every name that may be a backbone, torchvision's first; weights tags are left out."""
    return list(dict.fromkeys([*registered_names(), *torchvision_names(), *LITE0, *timm.list_models()]))


def registered_names() -> list[str]:
    """Return the names of registered backbones that are networks themselves: those from outside tldet."""
    return [name for name in names_in(BACKBONES) if _is_registered(name)]


def _is_registered(name: str) -> bool:
    target = lookup(BACKBONES, name)
    return target is not None and not target.__module__.startswith("tldet.")


def _of_registry(name: str) -> Found:
    """Build the class without weights to see its strides; its own ``mean`` and ``std`` are used if it has them."""
    target = lookup(BACKBONES, name)
    if needed := [key for key, (_, required) in parameters(target).items() if required]:
        raise ConfigError(f"backbone {name!r}: needs {', '.join(needed)}: set model.backbone in a config instead")
    backbone = without_storage(lambda: build_backbone({"type": name}))
    body = getattr(backbone, "body", backbone)
    usual = Preprocess()
    mean, std = (tuple(getattr(body, key, getattr(usual, key))) for key in ("mean", "std"))
    return Found({"type": name}, backbone.strides, backbone.weights_source, mean, std)


def _nearest(name: str) -> list[str]:
    arch, dot, _ = name.partition(".")
    tags = [f"{arch}.{tag}" for tag in _tags(arch)] if dot and arch in torchvision_names() else []
    tags += _trained(arch) if dot and timm.is_model(arch) else []
    return difflib.get_close_matches(name, tags or backbone_names(), n=3, cutoff=0.0)


def _tags(arch: str) -> list[str]:
    return [weights.name for weights in torchvision.models.get_model_weights(arch)]


def _trained(arch: str) -> list[str]:
    return list(timm.list_models(f"{arch}.*", pretrained=True))


def _of_torchvision(arch: str, tag: str) -> Found:
    enum = torchvision.models.get_model_weights(arch)
    weights = enum[tag] if tag else enum.DEFAULT
    seen = weights.transforms()
    section = _section("TorchvisionBackbone", arch, any(step.normed for step in trace(arch)))
    strides = tuple(sorted({step.stride for step in trace(arch)} - {1, 2}))
    return Found(section, strides, f"torchvision:{weights}", _scaled(seen.mean), _scaled(seen.std))


def _of_timm(name: str, source: str | None = None) -> Found:
    known, trained = network_outline(name), timm.get_pretrained_cfg(name)
    if trained.hf_hub_id or trained.url or trained.file:
        source = source or f"timm:{trained.architecture}.{trained.tag}".removesuffix(".")
    section = _section("ViTBackbone" if known.plain else "TimmBackbone", name, known.normed)
    strides = tuple(sorted(s for s in known.strides if s >= 4 and math.log2(s).is_integer()))
    return Found(section, strides or known.strides[:1], source, _scaled(trained.mean), _scaled(trained.std))


def _section(kind: str, name: str, normed: bool) -> dict[str, Any]:
    """With a norm behind each level where the network has no BatchNorm that would keep its maps in bounds."""
    return {"type": kind, "name": name, **({} if normed or kind == "ViTBackbone" else {"out_norm": "layer"})}


def _scaled(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(255 * value, 4) for value in values)
