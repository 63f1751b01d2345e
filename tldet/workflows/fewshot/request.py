"""Request of ``tldet fewshot``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tldet.workflows.options import ABOVE_0, COUNT, REQUIRED, option
from tldet.workflows.study.request import ExperimentRequest

_TITLE = "few-shot training"


@dataclass(frozen=True, kw_only=True)
class FewShotRequest(ExperimentRequest):
    """Arguments of ``tldet fewshot``; length and settings are those of base training."""

    novel: Sequence[str] = option(
        "names of the novel classes", default=REQUIRED, metavar="CLASS", many=True, group=_TITLE
    )
    shots: Sequence[int] = option(
        "numbers K of objects per class, one run each (default: 1 5 10)",
        int,
        default=(1, 5, 10),
        metavar="K",
        interval=COUNT,
        many=True,
        group=_TITLE,
    )
    variants: Sequence[str] = option(
        "tfa: train only the last layers, with a cosine classifier; fc: the same with a linear classifier; full: train "
        "all layers (default: tfa)",
        default=("tfa",),
        choices=["tfa", "fc", "full"],
        many=True,
        group=_TITLE,
    )
    base: str | Path | None = option(
        "checkpoint of a detector trained on the base classes (default: train one)", metavar="CKPT", group=_TITLE
    )
    shot_steps: int = option(
        "training steps of a K-shot run (default: 300)", int, default=300, metavar="N", interval=COUNT, group=_TITLE
    )
    lr_factor: float = option(
        "learning rate of a K-shot run relative to base training (default: 0.1)",
        float,
        default=0.1,
        metavar="F",
        interval=ABOVE_0,
        group=_TITLE,
    )
    as_background: bool = option(
        "treat objects that were not selected as background, as in the papers (default: ignore them)",
        bool,
        group=_TITLE,
    )
    shot_options: Sequence[str] = option("set config keys of the K-shot runs", metavar="a.b=c", many=True, group=_TITLE)
