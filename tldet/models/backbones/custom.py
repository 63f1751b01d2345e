"""Backbones from outside tldet, with defaults for what they do not define."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor, nn

from tldet.config import build
from tldet.config.check import parameters
from tldet.errors import ConfigError
from tldet.models.backbones.base import Backbone, Norm, ceil_div, child_groups
from tldet.plugins import lookup
from tldet.registry import BACKBONES
from tldet.text import counted


@dataclass(frozen=True)
class BackboneOptions:
    """Keys that every backbone may have in a config, even if its class does not take them.

    Attributes:
        weights: see :class:`~tldet.models.backbones.base.Backbone`.
        out_strides: strides of the output levels; None for all that the backbone has.
        frozen_stages: see :class:`~tldet.models.backbones.base.Backbone`.
        norm: see :class:`~tldet.models.backbones.base.Backbone`.
    """

    weights: str | None = None
    out_strides: Sequence[int] | None = None
    frozen_stages: int = -1
    norm: Norm = "batch"


class CustomBackbone(Backbone):
    """Backbone of a module with ``channels`` and ``strides``.

    Images are padded to multiples of the largest stride, and maps are cropped to the sizes that their strides imply.
    Layer groups are those of the module if it defines them, otherwise its children.

    Args:
        body: the module; its outputs are a tensor per stride, or a single tensor for a single stride.
        options: see :class:`BackboneOptions`.

    Raises:
        ValueError: ``channels`` and ``strides`` do not fit each other, or a stride of ``out_strides`` is missing.
    """

    def __init__(self, body: nn.Module, options: BackboneOptions) -> None:
        weights = options.weights or getattr(body, "weights_source", None)
        super().__init__(weights=weights, frozen_stages=options.frozen_stages, norm=options.norm)
        self.body = body
        channels, strides = (_numbers(body, name) for name in ("channels", "strides"))
        if len(channels) != len(strides):
            raise ValueError(f"channels {list(channels)} and strides {list(strides)} must have one number per level")
        selected = strides if options.out_strides is None else tuple(options.out_strides)
        if not selected or not set(selected) <= set(strides):
            raise ValueError(f"has levels of stride {list(strides)}, not all of out_strides={list(selected)}")
        self.outputs = tuple(strides.index(stride) for stride in selected)
        self.all_strides, self.multiple = strides, max(strides)
        self.channels, self.strides = tuple(channels[i] for i in self.outputs), selected

    def layer_groups(self) -> list[tuple[str, list[str]]]:
        """Return the module's own layer groups, else its children."""
        own = getattr(self.body, "layer_groups", None)
        if not callable(own):
            return child_groups(self.body, "body.")
        return [(name, [f"body.{prefix}" for prefix in prefixes]) for name, prefixes in own()]

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map (B, 3, H, W) to one (B, C, ceil(H / stride), ceil(W / stride)) per level."""
        height, width = (ceil_div(side, self.multiple) * self.multiple for side in x.shape[-2:])
        return self.maps(x) if (height, width) == tuple(x.shape[-2:]) else self.on_padded(x, (height, width))

    def maps(self, x: Tensor) -> tuple[Tensor, ...]:
        """Select the output levels."""
        levels: Any = self.body(x)
        if isinstance(levels, Tensor):
            levels = (levels,)
        elif isinstance(levels, Mapping):
            levels = tuple(levels.values())
        if len(levels) != len(self.all_strides):
            raise ValueError(
                f"{type(self.body).__name__} returns {counted(len(levels), 'map')} for strides {self.all_strides}"
            )
        return tuple(levels[i] for i in self.outputs)


def _numbers(body: nn.Module, name: str) -> tuple[int, ...]:
    value: Any = getattr(body, name)
    numbers = (value,) if isinstance(value, int) else tuple(value) if isinstance(value, (list, tuple)) else ()
    if not numbers or not all(type(number) is int and number > 0 for number in numbers):
        raise ValueError(f"{name} must be positive integers, one per level, not {value!r}")
    return numbers


def build_backbone(section: Mapping[str, Any], path: str = "model.backbone") -> Backbone:
    """Build the backbone of a config section; keys that its class does not take are handled by tldet.

    Raises:
        ConfigError: the class rejects a value, or lacks ``channels``, ``strides`` or ``forward``.
    """
    target = lookup(BACKBONES, section["type"])
    known = {} if target is None else parameters(target)
    shared = asdict(BackboneOptions())
    rest = {} if target is None else {k: section[k] for k in shared if k in section and k not in known}
    built = build(BACKBONES, {k: v for k, v in section.items() if k not in rest}, path)
    if isinstance(built, Backbone) and not _changes(built, rest):
        return built
    try:
        return CustomBackbone(built, BackboneOptions(**rest))
    except ValueError as error:
        raise ConfigError(f"{path}: backbone {section['type']}: {error}") from None


def _changes(built: Backbone, rest: Mapping[str, Any]) -> bool:
    """Apply options that a backbone of tldet's base class does not take; return True if its levels must change."""
    if "weights" in rest:
        built.weights_source = rest["weights"]
    built.frozen_stages = rest.get("frozen_stages", built.frozen_stages)
    built.norm = rest.get("norm", built.norm)
    strides = rest.get("out_strides")
    return strides is not None and tuple(strides) != tuple(built.strides)
