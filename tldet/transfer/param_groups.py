"""Optimizers and parameter groups."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from tldet.config import build, require_range, require_ranges
from tldet.errors import ConfigError
from tldet.models.backbones import within
from tldet.registry import OPTIMIZERS

log = logging.getLogger(__name__)
_NORMS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)


class Recipe:
    """Parameter groups and settings that all optimizers share.

    Args:
        lr: learning rate for batch size ``base_batch``; it is scaled linearly to the actual batch size.
        weight_decay: weight decay of layer weights. It is 0 for scales, position embeddings, tokens, relative position
            tables and the parameters that ``no_weight_decay()`` of a backbone lists.
        base_batch: images per step for which ``lr`` was chosen; None does not scale ``lr``.
        norm_decay: weight decay of the scales of norms; None takes ``weight_decay``.
        bias_decay: weight decay of biases; None takes ``weight_decay``.
        bias_lr: factor on the learning rate of biases, except those of norms.
        backbone_lr: factor on the learning rate of the backbone.
        layer_decay: the learning rate of layer group n of the backbone's L + 1 (0 holds the embeddings or the stem) is
            multiplied by ``layer_decay ** (L + 1 - n)`` (Li et al. 2022, ViTDet), and by ``backbone_lr``, which is 1
            in ViTDet and in runs whose options turn on the decay.

    Raises:
        ConfigError: a value is out of range.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float = 1e-4,
        *,
        base_batch: int | None = None,
        norm_decay: float | None = None,
        bias_decay: float | None = None,
        bias_lr: float = 1.0,
        backbone_lr: float = 1.0,
        layer_decay: float = 1.0,
    ) -> None:
        self.lr, self.weight_decay, self.base_batch = lr, weight_decay, base_batch
        self.norm_decay = weight_decay if norm_decay is None else norm_decay
        self.bias_decay = weight_decay if bias_decay is None else bias_decay
        self.bias_lr, self.backbone_lr, self.layer_decay = bias_lr, backbone_lr, layer_decay
        require_ranges(self, lr="[0, inf)", weight_decay="[0, inf)", norm_decay="[0, inf)", bias_decay="[0, inf)")
        require_ranges(self, base_batch="[1, inf]", bias_lr="[0, inf)", backbone_lr="[0, inf)", layer_decay="(0, inf)")

    def groups(self, model: nn.Module, batch_size: int, undecayed: Collection[str] = ()) -> list[dict[str, Any]]:
        """Return one group per part, learning rate and weight decay; frozen parameters are in none.

        Args:
            model: the model, whose order the groups have.
            batch_size: images per step.
            undecayed: names of parameters without weight decay.
        """
        lr = self._scaled_lr(batch_size)
        factors = dict(self._factors(model))
        exempt = {*undecayed, *_exempt(model)}
        groups: dict[tuple[str, float, float], dict[str, Any]] = {}
        for module_name, module in model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                if not parameter.requires_grad:
                    continue
                part, factor = self._part(f"{module_name}.{name}", factors)
                decay, bias_factor = self._decay(module, name, parameter)
                if f"{module_name}.{name}".lstrip(".") in exempt:
                    decay = 0.0
                rate = lr * factor * bias_factor
                empty = {"name": part, "params": [], "lr": rate, "initial_lr": rate, "weight_decay": decay}
                groups.setdefault((part, rate, decay), empty)["params"].append(parameter)
        return list(groups.values())

    def _scaled_lr(self, batch_size: int) -> float:
        """Scale the learning rate linearly to the batch size, and log it."""
        if not self.base_batch or batch_size == self.base_batch:
            log.info("learning rate %g, batch size %d", self.lr, batch_size)
            return self.lr
        lr = self.lr * batch_size / self.base_batch
        text = "learning rate %g: %g for batch size %d, scaled linearly to batch size %d (--lr sets it directly)"
        log.info(text, lr, self.lr, self.base_batch, batch_size)
        return lr

    def _decay(self, module: nn.Module, name: str, parameter: nn.Parameter) -> tuple[float, float]:
        """Return the weight decay of a parameter of a module, and the factor on its learning rate."""
        if isinstance(module, _NORMS):
            return self.norm_decay, 1.0
        if name.endswith("bias") and parameter.ndim == 1:
            return self.bias_decay, self.bias_lr
        if parameter.ndim < 2 or not name.endswith("weight"):
            return 0.0, 1.0
        return self.weight_decay, 1.0

    def _factors(self, model: nn.Module) -> Iterator[tuple[str, float]]:
        backbone: Any = getattr(model, "backbone", None)
        if backbone is None:
            return
        named = backbone.layer_groups()
        if self.layer_decay != 1:
            last, first = (self.backbone_lr * self.layer_decay**depth for depth in (1, len(named)))
            text = "layer-wise decay %g, backbone_lr %g: learning rate x %.3g (last backbone group) to x %.3g (first)"
            log.info(text, self.layer_decay, self.backbone_lr, last, first)
        for depth, (_, prefixes) in enumerate(named):
            exponent = len(named) - depth if self.layer_decay != 1 else 0
            for prefix in prefixes:
                yield f"backbone.{prefix}", self.backbone_lr * self.layer_decay**exponent

    def _part(self, name: str, factors: Mapping[str, float]) -> tuple[str, float]:
        for prefix, factor in factors.items():
            if within(name, [prefix]):
                return ("backbone" if self.layer_decay == 1 else prefix), factor
        return name.partition(".")[0], 1.0


def _exempt(model: nn.Module) -> Iterator[str]:
    """Yield the names of parameters without weight decay, as declared by modules (timm's ``no_weight_decay``)."""
    for prefix, module in model.named_modules():
        declared = getattr(module, "no_weight_decay", None)
        if callable(declared):
            yield from (f"{prefix}.{name}".lstrip(".") for name in declared())


@OPTIMIZERS.register_module()
class SGD(Recipe):
    """Stochastic gradient descent with momentum.

    Args:
        lr: see :class:`Recipe`.
        momentum: factor on the previous step.
        weight_decay: see :class:`Recipe`.
        nesterov: use Nesterov momentum.
        base_batch: see :class:`Recipe`.
        norm_decay: see :class:`Recipe`.
        bias_decay: see :class:`Recipe`.
        bias_lr: see :class:`Recipe`.
        backbone_lr: see :class:`Recipe`.
        layer_decay: see :class:`Recipe`.
    """

    def __init__(
        self,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-4,
        *,
        nesterov: bool = False,
        base_batch: int | None = None,
        norm_decay: float | None = None,
        bias_decay: float | None = None,
        bias_lr: float = 1.0,
        backbone_lr: float = 1.0,
        layer_decay: float = 1.0,
    ) -> None:
        shared: dict[str, Any] = {"base_batch": base_batch, "norm_decay": norm_decay, "bias_decay": bias_decay}
        shared |= {"bias_lr": bias_lr, "backbone_lr": backbone_lr, "layer_decay": layer_decay}
        super().__init__(lr, weight_decay, **shared)
        self.momentum, self.nesterov = momentum, nesterov
        require_range("momentum", momentum, "[0, 1)")
        if nesterov and not momentum:
            raise ConfigError("momentum must be above 0 with nesterov=True, not 0")

    def make(self, model: nn.Module, batch_size: int, undecayed: Collection[str] = ()) -> torch.optim.Optimizer:
        """Create the optimizer of a model; see :meth:`Recipe.groups`."""
        groups = self.groups(model, batch_size, undecayed)
        return torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, foreach=True)


@OPTIMIZERS.register_module()
class AdamW(Recipe):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Args:
        lr: see :class:`Recipe`.
        betas: decay of the running means of the gradient and its square.
        weight_decay: see :class:`Recipe`.
        base_batch: see :class:`Recipe`.
        norm_decay: see :class:`Recipe`.
        bias_decay: see :class:`Recipe`.
        bias_lr: see :class:`Recipe`.
        backbone_lr: see :class:`Recipe`.
        layer_decay: see :class:`Recipe`.
    """

    def __init__(
        self,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.05,
        *,
        base_batch: int | None = None,
        norm_decay: float | None = None,
        bias_decay: float | None = None,
        bias_lr: float = 1.0,
        backbone_lr: float = 1.0,
        layer_decay: float = 1.0,
    ) -> None:
        shared: dict[str, Any] = {"base_batch": base_batch, "norm_decay": norm_decay, "bias_decay": bias_decay}
        shared |= {"bias_lr": bias_lr, "backbone_lr": backbone_lr, "layer_decay": layer_decay}
        super().__init__(lr, weight_decay, **shared)
        self.betas = (betas[0], betas[1])
        require_range("betas", betas, "[0, 1)")

    def make(self, model: nn.Module, batch_size: int, undecayed: Collection[str] = ()) -> torch.optim.Optimizer:
        """Create the optimizer of a model; see :meth:`Recipe.groups`."""
        groups = self.groups(model, batch_size, undecayed)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, fused=True)


def build_optimizer(
    model: nn.Module, settings: Mapping[str, Any], batch_size: int, undecayed: Collection[str] = ()
) -> torch.optim.Optimizer:
    """Create the optimizer of the ``optimizer`` section of a config.

    Args:
        model: the model; its trainable parameters are optimized.
        settings: the section.
        batch_size: images per step.
        undecayed: names of parameters without weight decay.

    Raises:
        ConfigError: a value is out of range.
    """
    recipe = build(OPTIMIZERS, settings, "optimizer")
    return recipe.make(model, batch_size, undecayed)  # type: ignore[no-any-return]
