"""Search for backbones by name, with their weights, mean, std and strides."""

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

CURATED = (  # default list of `tldet models`: a line per family, small to large
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
_LITE0 = {"efficientnet_lite0", "tf_efficientnet_lite0"}  # names of the network whose weights come in a package


@dataclass(frozen=True)
class BackboneInfo:
    """Backbone found by name.

    Attributes:
        section: ``type`` and ``name`` of its config section, and ``out_norm`` if it needs one; for a registered
            backbone only ``type``.
        strides: strides of its levels; a single one for a plain vision transformer.
        weights: source of its pretrained weights; None if there are none.
        mean: mean of each channel in the training of the weights, on the scale 0..255.
        std: standard deviation, likewise.
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
        """True for a plain vision transformer, whose single map needs a neck that computes levels."""
        return bool(self.section["type"] == "ViTBackbone")

    def config(self, strides: Sequence[int], *, scratch: bool = False) -> dict[str, Any]:
        """Return the config section for output levels of these strides; pretrained weights get a frozen stem."""
        random = scratch or self.weights is None
        section = {**self.section, "weights": None if random else self.weights, "frozen_stages": -1 if random else 0}
        if self.plain:
            return section
        norm = "batch" if random else "frozen"
        return {**section, "out_strides": list(strides), "norm": norm}


def find_backbone(name: str) -> BackboneInfo:
    """Find a backbone by name in the registry, torchvision and timm, in this order (``timm:NAME``: only in timm).

    A tag after a dot selects the weights: ``resnet50.IMAGENET1K_V1``, ``convnext_tiny.fb_in22k``.

    Raises:
        ConfigError: there is no such network, or it cannot be a backbone; the message lists similar names.
    """
    library, _, rest = name.rpartition(":")
    arch, _, tag = rest.partition(".")
    try:
        if library == "" and _is_registered(rest):
            return _of_registry(rest)
        if rest in _LITE0 and library in {"", "package"}:
            return _of_timm("tf_efficientnet_lite0", "package:efficientnet_lite0")
        if library in {"", "torchvision"} and arch in torchvision_names() and (not tag or tag in _tags(arch)):
            return _of_torchvision(arch, tag)
        if library in {"", "timm"} and timm.is_model(arch) and (not tag or rest in _trained(arch)):
            return _of_timm(rest)
    except ValueError as error:
        raise ConfigError(f"backbone {name!r}: {error}") from None
    raise ConfigError(f"backbone {name!r}: neither torchvision nor timm has it; nearest: {', '.join(_nearest(rest))}")


def backbone_names() -> list[str]:
    """Return the names of all backbones without tags of weights, registered ones and those of torchvision first."""
    return list(dict.fromkeys([*registered_names(), *torchvision_names(), *_LITE0, *timm.list_models()]))


def registered_names() -> list[str]:
    """Return the names of registered backbones from outside tldet, which are networks themselves."""
    return [name for name in names_in(BACKBONES) if _is_registered(name)]


def _is_registered(name: str) -> bool:
    target = lookup(BACKBONES, name)
    return target is not None and not target.__module__.startswith("tldet.")


def _of_registry(name: str) -> BackboneInfo:
    """Build a registered class without weights to find its strides; ``mean`` and ``std`` of the class are used."""
    target = lookup(BACKBONES, name)
    if needed := [key for key, (_, required) in parameters(target).items() if required]:
        raise ConfigError(f"backbone {name!r}: needs {', '.join(needed)}: set model.backbone in a config instead")
    backbone = without_storage(lambda: build_backbone({"type": name}))
    body = getattr(backbone, "body", backbone)
    default = Preprocess()
    mean, std = (tuple(getattr(body, key, getattr(default, key))) for key in ("mean", "std"))
    return BackboneInfo({"type": name}, backbone.strides, backbone.weights_source, mean, std)


def _nearest(name: str) -> list[str]:
    arch, dot, _ = name.partition(".")
    tags = [f"{arch}.{tag}" for tag in _tags(arch)] if dot and arch in torchvision_names() else []
    tags += _trained(arch) if dot and timm.is_model(arch) else []
    return difflib.get_close_matches(name, tags or backbone_names(), n=3, cutoff=0.0)


def _tags(arch: str) -> list[str]:
    return [weights.name for weights in torchvision.models.get_model_weights(arch)]


def _trained(arch: str) -> list[str]:
    return list(timm.list_models(f"{arch}.*", pretrained=True))


def _of_torchvision(arch: str, tag: str) -> BackboneInfo:
    enum = torchvision.models.get_model_weights(arch)
    weights = enum[tag] if tag else enum.DEFAULT
    preset = weights.transforms()
    section = _section("TorchvisionBackbone", arch, any(step.normed for step in trace(arch)))
    strides = tuple(sorted({step.stride for step in trace(arch)} - {1, 2}))
    return BackboneInfo(section, strides, f"torchvision:{weights}", _scaled(preset.mean), _scaled(preset.std))


def _of_timm(name: str, source: str | None = None) -> BackboneInfo:
    known, trained = network_outline(name), timm.get_pretrained_cfg(name)
    if trained.hf_hub_id or trained.url or trained.file:
        source = source or f"timm:{trained.architecture}.{trained.tag}".removesuffix(".")
    section = _section("ViTBackbone" if known.plain else "TimmBackbone", name, known.normed)
    strides = tuple(sorted(s for s in known.strides if s >= 4 and math.log2(s).is_integer()))
    return BackboneInfo(section, strides or known.strides[:1], source, _scaled(trained.mean), _scaled(trained.std))


def _section(kind: str, name: str, normed: bool) -> dict[str, Any]:
    """Return the config section; a network without BatchNorm gets a norm on each level."""
    return {"type": kind, "name": name, **({} if normed or kind == "ViTBackbone" else {"out_norm": "layer"})}


def _scaled(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(255 * value, 4) for value in values)
