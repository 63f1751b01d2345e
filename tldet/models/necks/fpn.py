"""Feature pyramid network (Lin et al. 2017, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from tldet.config import require_range
from tldet.registry import NECKS
from tldet.text import counted

Extra = Literal["maxpool", "p6p7_c5", "p6p7_p5", "none"]


@NECKS.register_module()
class FPN(nn.Module):
    """Feature pyramid: top-down pathway with lateral connections, and extra levels on top.

    Args:
        in_channels: channels of the levels of the backbone, finest first.
        in_strides: strides of these levels.
        out_channels: channels of each output level.
        extra: "maxpool" adds one level by subsampling the coarsest one (Faster R-CNN); "p6p7_c5" adds two levels by
            strided convolutions on the coarsest map of the backbone, "p6p7_p5" on that of the pyramid (RetinaNet: C5 in
            the paper, P5 in torchvision); "none" adds no level.
        relu_before_p7: ReLU between P6 and P7 (RetinaNet paper, torchvision, FCOS; not in mmdet's RetinaNet, ATSS and
            GFL).
        norm: "batch" adds BatchNorm after each convolution except those of extra levels, as in torchvision's improved
            versions; a pyramid with random initial weights then needs fewer steps.

    Raises:
        ConfigError: ``out_channels`` is not positive.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        out_channels: int = 256,
        extra: Extra = "maxpool",
        relu_before_p7: bool = True,
        norm: Literal["none", "batch"] = "none",
    ) -> None:
        super().__init__()
        require_range("out_channels", out_channels, "[1, inf]")
        self.lateral = nn.ModuleList(_conv(channels, out_channels, 1, norm) for channels in in_channels)
        self.output = nn.ModuleList(_conv(out_channels, out_channels, 3, norm) for _ in in_channels)
        self.extra, self.relu_before_p7 = extra, relu_before_p7
        added = {"maxpool": 1, "p6p7_c5": 2, "p6p7_p5": 2, "none": 0}[extra]
        if added == 2:
            source = in_channels[-1] if extra == "p6p7_c5" else out_channels
            self.p6 = nn.Conv2d(source, out_channels, 3, stride=2, padding=1)
            self.p7 = nn.Conv2d(out_channels, out_channels, 3, stride=2, padding=1)
        self.channels = out_channels
        self.strides = (*in_strides, *(in_strides[-1] * 2 ** (i + 1) for i in range(added)))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, a=1)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map one (B, C, H, W) per level of the backbone to one (B, out_channels, H, W) per level of ``strides``.

        If ``features`` is a list, it is emptied, so that prediction can reuse the memory of each map.

        Raises:
            ValueError: the number of maps is wrong.
        """
        left = features if isinstance(features, list) else list(features)
        if len(left) != len(self.lateral):
            raise ValueError(f"takes {counted(len(self.lateral), 'map')}, not {len(left)}")
        top = left[-1] if self.extra == "p6p7_c5" else None
        levels: list[Tensor] = []
        coarser: Tensor | None = None
        for lateral, output in zip(reversed(self.lateral), reversed(self.output), strict=True):
            inner = lateral(left.pop())
            if coarser is not None:
                inner = inner.add_(F.interpolate(coarser, size=inner.shape[-2:], mode="nearest"))
            levels.insert(0, output(inner))
            coarser = inner
        if self.extra == "maxpool":
            levels.append(F.max_pool2d(levels[-1], 1, stride=2))
        elif self.extra != "none":
            p6 = self.p6(levels[-1] if top is None else top)
            levels += [p6, self.p7(F.relu(p6) if self.relu_before_p7 else p6)]
        return tuple(levels)


def _conv(in_channels: int, out_channels: int, kernel: int, norm: str) -> nn.Module:
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=norm == "none")
    return conv if norm == "none" else nn.Sequential(conv, BatchNorm(out_channels))


class BatchNorm(nn.BatchNorm2d):
    """BatchNorm that uses its running statistics for batches with at most one value per channel."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize (B, C, H, W)."""
        if self.training and x.shape[0] * x.shape[2] * x.shape[3] <= 1:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)
