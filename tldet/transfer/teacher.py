"""The older detector that an extended one is held to: the ``distill`` section of a config."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from tldet.errors import CheckpointError
from tldet.models.detector import Detector
from tldet.models.distillation import DistilledDetector, DistillSettings
from tldet.system.inputs import is_file
from tldet.transfer.downloads import file_hash
from tldet.transfer.restore import restore

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TeacherSettings(DistillSettings):
    """Where the teacher is, and how it is listened to.

    Attributes:
        teacher: a tldet checkpoint of a detector.
        sha256: of that file; a run that goes on must have the teacher it began with.
    """

    teacher: str
    sha256: str


def distilled(student: Detector, settings: TeacherSettings) -> DistilledDetector:
    """The student, taught by the detector in the teacher's file.

    Raises:
        CheckpointError: the file is missing, has changed, or does not hold a detector that can teach this one.
    """
    path = Path(settings.teacher)
    if not is_file(path):
        raise CheckpointError(
            f"distill.teacher: {path} is missing: put the detector that was extended back there, "
            "or say by distill.teacher where it is now"
        )
    if (found := file_hash(path)) != settings.sha256:
        raise CheckpointError(
            f"distill.teacher: {path} has changed since the run was set up (SHA-256 {found[:12]}..., it was "
            f"{settings.sha256[:12]}...): put the old file back, or start a new run"
        )
    teacher, _ = restore(path)
    log.info(
        "%s teaches: what it finds with a score of %g or more of classes that an image was not labeled for is an "
        "object there, from %g on neither object nor background",
        *(path, settings.score, settings.unsure),
    )
    try:
        return DistilledDetector(student, teacher, settings)
    except ValueError as error:
        raise CheckpointError(f"distill.teacher: {path}: {error}; give the detector that was extended") from None
