"""mmdet's one-stage detectors in our key names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

RENAMES = (
    (r"^neck\.lateral_convs\.(\d+)\.conv\.", r"neck.lateral.\1."),
    (r"^neck\.fpn_convs\.(\d+)\.conv\.", r"neck.output.\1."),
    (r"^bbox_head\.retina_cls\.", "head.cls_score."),
    (r"^bbox_head\.retina_reg\.", "head.bbox_pred."),
)
TOWER = re.compile(r"^bbox_head\.(cls|reg)_convs\.(\d+)\.conv\.")
OUTPUT = re.compile(r"^neck\.output\.(\d+)\.")


def from_mmdet(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of mmdet's RetinaNet in our names."""
    laterals = len({key.split(".")[2] for key in state if key.startswith("neck.lateral_convs.")})
    return {_rename(key, laterals): value for key, value in state.items()}


def _rename(key: str, laterals: int) -> str:
    tower = TOWER.match(key)
    if tower:
        name = {"cls": "cls_tower", "reg": "box_tower"}[tower[1]]
        return f"head.{name}.{2 * int(tower[2])}.{key[tower.end() :]}"
    for pattern, ours in RENAMES:
        key = re.sub(pattern, ours, key)
    output = OUTPUT.match(key)
    if output and int(output[1]) >= laterals:  # mmdet counts the convolutions of the extra levels on
        return f"neck.p{6 + int(output[1]) - laterals}.{key[output.end() :]}"
    return key
