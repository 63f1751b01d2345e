"""Learning rate of the backbone in a run with layer-wise decay."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tldet.config import Config, override

log = logging.getLogger(__name__)
DECAY, FACTOR = "optimizer.layer_decay", "optimizer.backbone_lr"


def without_factor(config: Config, given: Mapping[str, Any], *, chosen: bool = False) -> Config:
    """Return a config in which layer-wise decay replaces ``backbone_lr``, as in ViTDet (Li et al. 2022).

    A recipe multiplies the learning rate of the backbone by a factor for all layers. If an option turns on layer-wise
    decay, the factor becomes 1 unless an option sets it too. A file that contains both keys is used as it is.

    Args:
        config: the config with all options.
        given: dotted keys and values of the user's config options.
        chosen: the run has turned on layer-wise decay by other means than ``given``.
    """
    factor, decay = config.get(FACTOR, 1.0), config.get(DECAY, 1.0)
    if decay == 1 or factor == 1 or _sets(given, FACTOR) or not (chosen or _sets(given, DECAY)):
        return config
    log.info("%s = 1 instead of %s, because of %s = %s (ViTDet); set it to use both", FACTOR, factor, DECAY, decay)
    return override(config, {FACTOR: 1.0})


def _sets(given: Mapping[str, Any], key: str) -> bool:
    """Return True if an option sets a key, by itself or within its section."""
    section, _, name = key.rpartition(".")
    values = given.get(section)
    return key in given or (isinstance(values, Mapping) and name in values)
