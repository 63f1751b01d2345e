"""``tldet.study``: the studies of ``tldet study`` as one function."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tldet.config.check import nearest
from tldet.errors import ConfigError
from tldet.workflows.study.data import StudyConfig
from tldet.workflows.study.report import StudyReport
from tldet.workflows.study.study import study_backbones, study_data, study_transfer

if TYPE_CHECKING:
    from rich.console import Console

_KINDS = ("transfer", "backbones", "data")


def study(
    kind: Literal["transfer", "backbones", "data"],
    data: str | Path | None = None,
    *,
    out: str | Path,
    variants: Sequence[str] = (),
    fractions: Sequence[float] = (),
    predict: Sequence[int] = (),
    console: Console | None = None,
    **settings: Any,
) -> StudyReport:
    """Compare variants of training on the same data, with the same length and several seeds.

    Args:
        kind: "transfer" (ways to initialize and freeze), "backbones", or "data" (AP by number of training images).
        data: folder in one of the usual layouts, as for :func:`tldet.finetune`.
        out: output directory.
        variants: variants to compare: names of ``tldet study transfer --help`` (all by default), or backbones.
        fractions: fractions of the training images (default: 1; for "data" 0.05, 0.1, 0.25, 0.5, 1).
        predict: for "data", numbers of training images to predict the AP of.
        console: shows progress and results.
        settings: further settings of all runs: ``model``, ``steps``, ``epochs``, ``minutes``, ``seeds``, ...

    Raises:
        TldetError: the data, a name or a value is wrong, or a run failed.
    """
    if kind not in _KINDS:
        raise ConfigError(f"study: kind must be one of {', '.join(_KINDS)}, not {kind!r}")
    known = {one.name for one in fields(StudyConfig)} - {"data", "out"}
    for name in settings.keys() - known:
        raise ConfigError(f"study: unknown setting {name!r}; {nearest(name, known)}")
    for name, value, belongs in (("variants", variants, kind != "data"), ("predict", predict, kind == "data")):
        if value and not belongs:
            raise ConfigError(f"study: {name} does not apply to a study of {kind}")
    config = StudyConfig(data, Path(out), **settings)
    share: dict[str, Any] = {"fractions": fractions} if fractions else {}
    if kind == "transfer":
        named: dict[str, Any] = {"variants": variants} if variants else {}
        return study_transfer(config, **named, **share, console=console)
    if kind == "backbones":
        return study_backbones(config, variants, **share, console=console)
    return study_data(config, **share, predict=predict, console=console)
