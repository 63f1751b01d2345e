"""Result of a training run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tldet.engine.state import TrainResult
from tldet.errors import CheckpointError
from tldet.evaluation.report import CocoResult
from tldet.text import counted, html_table
from tldet.transfer.provenance import checkpoint_outline
from tldet.workflows.training.validation import Validation

if TYPE_CHECKING:
    from tldet.engine.trainer import Trainer


@dataclass(repr=False)
class Outcome:
    """Result of training.

    Attributes:
        work_dir: folder of the run.
        train: steps, seconds, checkpoints.
        result: COCO metrics of ``checkpoint`` on the validation split; None if it was not evaluated.
    """

    work_dir: Path
    train: TrainResult
    result: CocoResult | None

    @property
    def checkpoint(self) -> Path | None:
        """Best checkpoint, or the last checkpoint without validation."""
        return self.train.best_checkpoint or self.train.checkpoint

    def trained(self) -> Path:
        """Return :attr:`checkpoint`.

        Raises:
            CheckpointError: there is no checkpoint.
        """
        if self.checkpoint is None:
            raise CheckpointError(f"{self.work_dir}: no checkpoint")
        return self.checkpoint

    def __repr__(self) -> str:
        result = "not evaluated" if self.result is None else repr(self.result)
        return f"Outcome({counted(self.train.step, 'step')}, checkpoint {str(self.checkpoint)!r}, {result})"

    def _repr_html_(self) -> str:
        rows = {
            "checkpoint": self.checkpoint,
            "steps": self.train.step,
            "training time": f"{self.train.seconds:.0f} s",
            "end": self.train.reason,
        }
        return html_table("training", ("", ""), rows.items()) + (self.result._repr_html_() if self.result else "")


class ResultCallback:
    """Hook that stores the COCO result in the checkpoint of weights that were just evaluated."""

    def __init__(self, validation: Validation) -> None:
        self.validation = validation

    def before_save_checkpoint(self, runner: Trainer, checkpoint: dict[str, Any]) -> None:  # noqa: ARG002
        """Add ``meta.trained.result``."""
        if self.validation.result is not None and checkpoint["meta"]["trained"]["metrics"]:
            checkpoint["meta"]["trained"]["result"] = asdict(self.validation.result)


def stored_result(path: Path | None) -> CocoResult | None:
    """Read the COCO result stored in a checkpoint; None if its weights were not evaluated."""
    stored = None if path is None else checkpoint_outline(path)["meta"]["trained"].get("result")
    return None if stored is None else CocoResult.of(stored)
