"""Number of parameters and multiply-adds of a network, counted without weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from tldet.config import build
from tldet.errors import ConfigError
from tldet.models.backbones import build_backbone
from tldet.models.detector import build_detector
from tldet.models.meta_tensors import without_storage
from tldet.registry import HEADS
from tldet.structures.image import Size

_SMALL = 128  # side of the image for counting the cost of a region in the second stage
_REGIONS = 4  # of that image


class _Shapes(TorchFunctionMode):
    """Replace functions without multiply-adds on the meta device, where torch takes long for their results."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Return tensors of the same shape."""
        if func is F.batch_norm and args[0].is_meta:
            return torch.empty_like(args[0])
        if func is F.grid_sample and args[0].is_meta:
            return args[0].new_empty(*args[0].shape[:2], *args[1].shape[1:-1])
        return func(*args, **(kwargs or {}))


def multiply_adds(call: Callable[[], Any]) -> int:
    """Count the multiply-adds of convolutions, matrix products and attention in ``call``."""
    with torch.no_grad(), _Shapes(), FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops()) // 2  # torch counts a multiply-add as two operations


def parameters_of(module: nn.Module) -> int:
    """Count the parameters."""
    return sum(p.numel() for p in module.parameters())


def backbone_cost(section: Mapping[str, Any], size: Size) -> tuple[int, int]:
    """Return (parameters, multiply-adds) of the backbone of a config section for an image of ``size``.

    Raises:
        ConfigError: the backbone does not support this size.
    """
    backbone = without_storage(lambda: build_backbone(section)).eval()
    try:
        return parameters_of(backbone), multiply_adds(lambda: backbone(_image(size)))
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"{section.get('name', section['type'])}: does not support images of {size}: {error}"
        ) from None


def detector_cost(model: Mapping[str, Any], size: Size) -> tuple[int, int]:
    """Return (parameters, multiply-adds) of the detector of a ``model`` section for an image of ``size``.

    The second stage is counted with the largest number of proposals.
    """
    detector = without_storage(lambda: build_detector(model)).eval()
    cost = multiply_adds(lambda: detector.head(detector.features(_image(size))))
    if hasattr(detector.head, "rpn"):
        cost += second_stage(model["head"], detector.neck)
    return parameters_of(detector), cost


def second_stage(section: Mapping[str, Any], neck: Any) -> int:
    """Estimate the multiply-adds of the second stage without masks from a few regions of a small image."""
    head = build(HEADS, section, in_channels=neck.channels, strides=neck.strides).eval()
    proposals = int(head.rpn.settings.nms_post[1])
    head.rpn.settings = replace(head.rpn.settings, nms_post=(_REGIONS, _REGIONS))
    features = [torch.zeros(1, neck.channels, *[max(_SMALL // stride, 1)] * 2) for stride in neck.strides]
    with torch.no_grad():
        raw = head(features)
        regions = head.rpn.propose(raw.rpn, [(_SMALL, _SMALL)], training=False).split()[0]
    one = multiply_adds(lambda: head.decode(raw, [(_SMALL, _SMALL)])) // len(regions)
    return one * proposals


def _image(size: Size) -> torch.Tensor:
    return torch.zeros(1, 3, *size, device="meta")
