"""What torchvision's files of before version 0.13 call otherwise; its published COCO weights of 2020 and 2021 are such.

torchvision renames these keys itself when it loads such a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

RENAMES = (
    (re.compile(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$"), r"\1.0.\2"),
    (re.compile(r"^(rpn\.head\.conv)\.(weight|bias)$"), r"\1.0.0.\2"),
)
MASK_CONV = re.compile(r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.(weight|bias)$")
EPS = 1e-5  # what BatchNorm adds to the variance; these files were trained, and torchvision runs them, with 0


def current_names(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of torchvision's detectors in its present names; one that has them already is left as it is.

    The older files' frozen norms add nothing to the variance (torchvision's ``overwrite_eps(model, 0.0)``), so what
    ours add is taken off.
    """
    renamed = {_rename(key): value for key, value in state.items()}
    if renamed.keys() == state.keys():
        return renamed
    frozen = {key: value - EPS for key, value in renamed.items() if key.endswith("running_var")}
    return {**renamed, **frozen}


def _rename(key: str) -> str:
    mask = MASK_CONV.match(key)
    if mask:
        return f"{mask[1]}.{int(mask[2]) - 1}.0.{mask[3]}"
    for pattern, now in RENAMES:
        key = pattern.sub(now, key)
    return key
