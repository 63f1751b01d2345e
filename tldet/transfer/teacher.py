"""Teacher of a distilled detector: the ``distill`` section of a config."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tldet.errors import CheckpointError
from tldet.models.detector import Detector
from tldet.models.distillation import DistilledDetector, DistillSettings
from tldet.system.inputs import file_hash, is_file
from tldet.transfer.restore import restore

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TeacherSettings(DistillSettings):
    """Settings of distillation, and the file of the teacher.

    Attributes:
        teacher: tldet checkpoint of a detector.
        sha256: hash of that file; a resumed run must have the same teacher.
    """

    teacher: str
    sha256: str


def distilled(student: Detector, settings: TeacherSettings) -> DistilledDetector:
    """Add the teacher of a checkpoint to a detector.

    Raises:
        CheckpointError: the file is missing, has changed, or its detector does not fit this one.
    """
    path = Path(settings.teacher)
    if not is_file(path):
        raise CheckpointError(
            f"distill.teacher: {path} is missing: restore the detector that was extended, or set distill.teacher to "
            "its new path"
        )
    if (found := file_hash(path)) != settings.sha256:
        raise CheckpointError(
            f"distill.teacher: {path} has changed since the run was started (SHA-256 {found[:12]}..., before "
            f"{settings.sha256[:12]}...): restore the file, or start a new run"
        )
    teacher, _ = restore(path)
    log.info(
        "teacher %s: detections of classes that are not annotated on an image are objects there (score %g or more) or "
        "ignored (score %g or more)",
        *(path, settings.score_thr, settings.ignore_score_thr),
    )
    try:
        return DistilledDetector(student, teacher, settings)
    except ValueError as error:
        raise CheckpointError(f"distill.teacher: {path}: {error}; use the detector that was extended") from None
