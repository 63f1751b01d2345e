"""Folding of BatchNorm into the convolution before it, for prediction.

In eval mode, BatchNorm is a factor and a summand per channel (Ioffe and Szegedy 2015, section 3.1), which can be folded
into the weights of the convolution before it. This saves passes over the feature maps. Pairs of convolution and norm
are found in a forward pass, not by names.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from tldet.models.detector import Detector
from tldet.models.surgery.overlay import put_back, replace_modules

log = logging.getLogger(__name__)
_PROBE = 64  # pixels of the square images of the forward passes
_TOLERANCE = 1e-3  # of the largest output; larger changes are more than rounding


def fuse(model: Detector) -> Detector:
    """Fold the norms of backbone and neck in place, for a model in eval mode that is not trained any more.

    If the outputs would change, the model is not changed.

    Returns:
        ``model``, whose state dict no longer fits an unfused model.
    """
    with on_cpu(model):
        _fuse(model)
    return model


@contextmanager
def on_cpu(model: nn.Module) -> Iterator[None]:
    """Move a model to the CPU inside the ``with`` block, to fold norms and to compare outputs.

    On a GPU, TF32 changes outputs more than the tolerance allows, and MPS has no float64.
    """
    device = next(model.parameters()).device
    model.to("cpu")
    try:
        yield
    finally:
        model.to(device)


def _fuse(model: Detector) -> None:
    example = probe(model)
    pairs = norms_after(model, lambda: model.features(example))
    if not pairs:
        return
    kept = [(conv, conv.weight, conv.bias) for conv, _ in pairs]
    with torch.no_grad():
        before = model.features(example)
        for conv, norm in pairs:
            _fold(conv, norm)
        replaced = replace_modules(model, {norm: activation_of(norm) for _, norm in pairs})
        same = same_maps(before, model.features(example))
    if not same:
        log.debug("BatchNorm is not folded: outputs of %s would change", type(model.backbone).__name__)
        for conv, weight, bias in kept:
            conv.weight, conv.bias = weight, bias
        put_back(replaced)


def norms_after(model: nn.Module, run: Callable[[], object]) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Find pairs of a convolution and the BatchNorm that directly follows it, each of which runs once.

    If ``run`` fails, as in a network that supports one image size only, there are none.

    Args:
        model: model in eval mode.
        run: runs a forward pass.
    """
    produced: dict[int, tuple[nn.Conv2d, Tensor, int]] = {}
    pairs: dict[nn.BatchNorm2d, nn.Conv2d] = {}
    runs: Counter[nn.Module] = Counter()

    def convolved(module: nn.Module, _: Any, output: Tensor) -> None:
        runs[module] += 1
        produced[id(output)] = (cast(nn.Conv2d, module), output, output._version)

    def normed(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs[module] += 1
        conv, output, version = produced.get(id(inputs[0]), (None, None, None))
        if conv is not None and output is inputs[0] and output._version == version:  # not changed in place since
            pairs[cast(nn.BatchNorm2d, module)] = conv

    hooks = [m.register_forward_hook(convolved) for m in model.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(normed) for m in model.modules() if _foldable(m)]
    try:
        with torch.no_grad():
            run()
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.debug("BatchNorm is not folded: %s does not support small images (%s)", type(model).__name__, reason)
        return []
    finally:
        for hook in hooks:
            hook.remove()
    return [(conv, norm) for norm, conv in pairs.items() if runs[norm] == runs[conv] == 1]


def probe(model: nn.Module) -> Tensor:
    """Return a random image (1, 3, 64, 64) for comparing outputs."""
    weight = next(model.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, _PROBE, _PROBE, generator=generator).to(weight)


def _foldable(module: nn.Module) -> bool:
    if not isinstance(module, nn.BatchNorm2d) or getattr(module, "folded", False):  # see frozen_norms
        return False
    return module.track_running_stats and not module.training


def _fold(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fold a norm into a convolution in double precision: y = scale * (W x + b) + shift."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double() * scale
    if norm.affine:
        scale, shift = scale * norm.weight.double(), shift * norm.weight.double() + norm.bias.double()
    weight, bias = conv.weight, conv.bias
    if bias is not None:
        shift = shift + bias.double() * scale
    folded = (weight.double() * scale[:, None, None, None]).to(weight)
    conv.weight = nn.Parameter(folded.contiguous(memory_format=_layout(weight)), requires_grad=False)
    conv.bias = nn.Parameter(shift.to(weight), requires_grad=False)


def _layout(weight: Tensor) -> torch.memory_format:
    last = weight.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last and not weight.is_contiguous() else torch.contiguous_format


def activation_of(norm: nn.BatchNorm2d) -> nn.Module:
    """Return the dropout and activation that are part of a norm, as in timm."""
    steps = [step for name in ("drop", "act") if isinstance(step := getattr(norm, name, None), nn.Module)]
    steps = [step for step in steps if not isinstance(step, nn.Identity)]
    return steps[0] if len(steps) == 1 else nn.Sequential(*steps) if steps else nn.Identity()


def same_maps(before: tuple[Tensor, ...], after: tuple[Tensor, ...]) -> bool:
    """Return True if maps differ by rounding only."""
    pairs = zip(before, after, strict=True)
    return all(bool((b - a).abs().max() <= _TOLERANCE * b.abs().max().clamp(min=1e-6)) for b, a in pairs)
