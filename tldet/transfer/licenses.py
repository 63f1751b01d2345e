"""Licenses of pretrained weights, as their publishers state them."""

from __future__ import annotations

import re

_STATED = {  # by prefix of the source
    "dfine:": "Apache-2.0",  # LICENSE of Peterande/D-FINE
    "hf:ustc-community/dfine": "Apache-2.0",  # model cards of the hub
    "hf:PekingU/rtdetr": "Apache-2.0",  # likewise
}
OBJECTS365 = "trained on Objects365, whose terms also apply"
_OBJECTS365_NAME = re.compile(r"obj(ects?)?[-_]?365|obj2coco|o365", re.IGNORECASE)
_OBJECTS365_CLASSES = (365, 366)  # the authors of D-FINE count a class 0


def license_of(source: str, classes: int = 0) -> str:
    """Return the license of the weights of a source (:mod:`tldet.transfer.sources`); empty if none is stated.

    Weights that were trained on Objects365, recognized by name or number of classes, are marked.

    Args:
        source: the source, or a file.
        classes: number of classes; 0 for a backbone.
    """
    kind, _, name = source.partition(":")
    stated = next((one for start, one in _STATED.items() if source.startswith(start)), "")
    if kind == "timm":
        stated = _timm_license(name)
    marked = _OBJECTS365_NAME.search(source.rpartition("/")[2]) or classes in _OBJECTS365_CLASSES
    return "; ".join(part for part in (stated, OBJECTS365 if marked else "") if part)


def _timm_license(name: str) -> str:
    import timm

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    return "" if config is None or not config.license else str(config.license)
