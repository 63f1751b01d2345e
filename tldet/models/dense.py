"""What the one-stage heads share: their towers, and the references of a batch that learn an object."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from tldet.config import require_range
from tldet.errors import ConfigError
from tldet.models.losses import Known
from tldet.models.matching import IGNORED
from tldet.structures import Target

GROUPS = 32  # of a GroupNorm (Wu and He 2018)
TowerNorm = Literal["none", "group"]


def tower(in_channels: int, width: int, depth: int, *, norm: TowerNorm = "none", bias: bool = True) -> nn.Sequential:
    """``depth`` blocks of 3x3 convolution, GroupNorm where asked for, and ReLU.

    Raises:
        ValueError: the width cannot be cut into the groups of the norm, or leaves one channel a group, which has no
            variance on a level of one cell.
        ConfigError: there are no channels, fewer than no convolutions, or none to come to another width.
    """
    require_range("channels", width, "[1, inf]")
    require_range("stacked_convs", depth, "[0, inf]")
    if not depth and width != in_channels:
        raise ConfigError(f"stacked_convs must be at least 1 for channels={width} behind a pyramid of {in_channels}")
    if norm == "group" and (width % GROUPS or width == GROUPS):
        raise ValueError(f"channels must be a multiple of {GROUPS} and more for norm='group', not {width}")
    blocks = []
    for i in range(depth):
        conv = nn.Conv2d(in_channels if i == 0 else width, width, 3, padding=1, bias=bias)
        norms = [nn.GroupNorm(GROUPS, width)] if norm == "group" else []
        blocks.append(nn.Sequential(conv, *norms, nn.ReLU(inplace=True)))
    return nn.Sequential(*blocks)


def start_towers(head: nn.Module, classifier: nn.Conv2d, prior: float) -> None:
    """Start a head small, and every class at probability ``prior`` (Lin et al. 2017, section 3.3).

    Raises:
        ConfigError: it is no probability, or is sure.
    """
    require_range("prior", prior, "(0, 1)")
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.01)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    assert classifier.bias is not None
    nn.init.constant_(classifier.bias, -math.log((1 - prior) / prior))


def level_scales(levels: int) -> nn.ParameterList:
    """One learnt factor a level for what the shared box tower says (Tian et al. 2019, section 3.2)."""
    return nn.ParameterList(nn.Parameter(torch.ones(())) for _ in range(levels))


class Learners(NamedTuple):
    """Which references of a batch learn what; P of them hold an object, picture by picture."""

    counted: Tensor  # (B, M) bool, false for references that are neither object nor background
    rows: Tensor  # (P,) their rows among the counted ones of the batch
    picture: Tensor  # (P,)
    place: Tensor  # (P,) 0..M-1
    labels: Tensor  # (P,) 0..K-1
    boxes: Tensor  # (P, 4) xyxy pixels
    per_picture: Tensor  # (B,) how many there are
    known: Known | None  # None where every picture was labelled for every class

    def of(self, values: Tensor) -> Tensor:
        """(B, M, ...) predictions to the (P, ...) float32 of those that hold an object."""
        return values[self.picture, self.place].float()


def learners(matched: Sequence[Tensor], targets: Sequence[Target]) -> Learners:
    """The references that learn, from B x (M,) rows of the pictures' targets, BACKGROUND or IGNORED."""
    found = torch.stack(list(matched))
    counted, positive = found != IGNORED, found >= 0
    picture, place = positive.nonzero(as_tuple=True)
    chosen = [m[p] for m, p in zip(matched, positive, strict=True)]
    labels = torch.cat([target.labels[c] for target, c in zip(targets, chosen, strict=True)])
    boxes = torch.cat([target.boxes[c] for target, c in zip(targets, chosen, strict=True)])
    rows = positive[counted].nonzero().flatten()
    known = known_of(targets, counted, picture)
    return Learners(counted, rows, picture, place, labels, boxes, positive.sum(1), known)


def known_of(targets: Sequence[Target], counted: Tensor, picture: Tensor) -> Known | None:
    """Which classes the pictures were labelled for; None where every one was for all.

    Args:
        targets: of the B pictures.
        counted: (B, M) bool, the references that are object or background.
        picture: (P,) the picture of every object.
    """
    stated = [target.labelled if target.partial else None for target in targets]
    some = next((classes for classes in stated if classes is not None), None)
    if some is None:
        return None
    classes = torch.stack([torch.ones_like(some) if one is None else one for one in stated])
    return Known(classes, counted.sum(1).tolist(), picture)
