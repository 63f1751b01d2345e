"""``tldet.study``: one function for all kinds of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from tldet.errors import ConfigError
from tldet.workflows.study.report import StudyReport
from tldet.workflows.study.request import (
    AugmentStudyRequest,
    BackboneStudyRequest,
    DataStudyRequest,
    TransferStudyRequest,
    VariantStudyRequest,
)
from tldet.workflows.study.study import study_augment, study_backbones, study_data, study_transfer, study_variants


def study(
    kind: Literal["transfer", "backbones", "data", "variants", "augment"],
    data: str | Path | None = None,
    **options: Any,
) -> StudyReport:
    """Compare training runs on the same data, at an equal training length and with several seeds.

    Args:
        kind: "transfer" (initial weights and freezing), "backbones", "data" (AP by number of training images),
            "variants" (any settings), or "augment" (augmentation presets).
        data: folder with images and annotations, or an annotation file, as for :func:`tldet.finetune`.
        options: options of ``tldet study``: ``out`` (required), ``variants`` (names of variants or of backbones, or
            texts such as ``"low=lr=0.001"``), ``fractions``, ``predict`` (of "data"), ``model``, ``seeds``, ``steps``,
            ``epochs``, ``minutes``, ... and ``console``, which shows progress and results.

    Raises:
        TldetError: the data, a name or a value is wrong, or a run failed.
        TypeError: this kind of study does not have an option.
    """
    if kind == "transfer":
        return study_transfer(TransferStudyRequest(data, **options))
    if kind == "backbones":
        return study_backbones(BackboneStudyRequest(data, **options))
    if kind == "data":
        return study_data(DataStudyRequest(data, **options))
    if kind == "variants":
        return study_variants(VariantStudyRequest(data, **options))
    if kind == "augment":
        return study_augment(AugmentStudyRequest(data, **options))
    raise ConfigError(f"study: kind must be transfer, backbones, data, variants or augment, not {kind!r}")
