"""What ``tldet finetune --weights`` means."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from tldet.config.files import shipped
from tldet.errors import TrainingError
from tldet.transfer.adapt import set_input
from tldet.transfer.known import coco_weights
from tldet.transfer.start import open_start

log = logging.getLogger(__name__)


def check_start(weights: str | Path | None, scratch: bool, backbone: str | None, init_from: str | Path | None) -> None:
    """Hold the ways to start against each other.

    Raises:
        TrainingError: more than one is asked for.
    """
    if scratch and init_from is not None:
        raise TrainingError("--scratch and --init-from exclude each other")
    given = {"--scratch": scratch, "--init-from": init_from is not None, "--backbone": weights == "coco" and backbone}
    other = next((name for name, there in given.items() if there), None)
    if weights is not None and other:
        raise TrainingError(f"--weights {weights} and {other} exclude each other")


def set_weights(config: dict[str, Any], weights: str, recipe: str) -> None:
    """Write into a config where the detector's weights, or the backbone's, come from.

    A detector brings how it sees pictures: its normalisation, its channels' order, and where its bottlenecks stride.

    Args:
        config: the recipe, which is changed.
        weights: "coco" or a file.
        recipe: its name.

    Raises:
        CheckpointError: there are no such weights.
    """
    if weights == "coco":
        config["model"]["weights"] = {"source": coco_weights(recipe, shipped())}
        return
    start, model = open_start(Path(weights)), config["model"]
    if start is None:
        log.info("%s: a backbone's weights; pyramid and head start new", weights)
        model["backbone"]["weights"] = str(Path(weights).resolve())
        return
    model["weights"] = {"source": str(Path(weights).resolve())}
    published = start.published
    stride = start.strided_conv or published.get("backbone", {}).get("strided_conv")
    same = model["backbone"].get("name") == start.backbone
    for line in set_input(model, start.preprocess or published.get("preprocess"), stride if same else None):
        log.info("%s: %s, as its weights were trained", weights, line)
