"""Report of a finished training run on the console."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tldet.engine.logging import LOG_NAME, read_log
from tldet.engine.state import TrainResult, TrainSettings
from tldet.text import counted
from tldet.transfer.provenance import checkpoint_outline
from tldet.workflows.training.verdict import judge

if TYPE_CHECKING:
    from rich.console import Console

    from tldet.workflows.training.outcome import Outcome


def show_outcome(outcome: Outcome, training: TrainSettings, validation: object | None, console: Console) -> None:
    """Print the metrics of the best checkpoint, the verdict on the run, and the training speed."""
    records = read_log(outcome.work_dir / LOG_NAME)
    if outcome.result is not None and outcome.checkpoint is not None:
        console.print(f"{outcome.checkpoint}: {_evaluated(outcome)}", markup=False, highlight=False)
        console.print(*outcome.result.tables(), sep="\n")
    if validation and training.validate_every is not None:  # a verdict needs several validations
        verdict = judge(records, training.best_metric, outcome.train.comparable_from)
        console.print(verdict.text, markup=False, highlight=False)
    if stopped := early(outcome.train, training):
        console.print(stopped, markup=False, highlight=False)
    console.print(f"{_speed(outcome.train, records)}; checkpoint: {outcome.checkpoint}")


def _evaluated(outcome: Outcome) -> str:
    """Return the step of the evaluated weights and the split."""
    assert outcome.checkpoint is not None
    found = checkpoint_outline(outcome.checkpoint)
    trained, section = found["meta"]["trained"], found["config"]["data"]["val"]
    val = section.get("annotations", f"data.val ({section['type']})")
    return f"step {trained['steps']} of {outcome.train.step}, evaluated on {val} in {trained['precision']}"


def _speed(result: TrainResult, records: list[dict[str, Any]]) -> str:
    """Return steps, time and peak memory of training."""
    rate = f", {result.seconds / result.step:.2f} s/step" if result.step else ""
    peak = next((r["time"].get("peak_mb") for r in reversed(records) if r["type"] == "train"), None)
    most = f", peak memory {peak:,.0f} MB" if peak else ""
    return f"{counted(result.step, 'step')} in {result.seconds:.0f} s of training{rate}{most}"


def early(result: TrainResult, training: TrainSettings) -> str:
    """Return a line on a run that ended early; empty for other runs."""
    if result.reason == "finished":
        return ""
    without = counted(training.patience or 0, "validation")
    why = f"no improvement in {without}" if result.reason == "no gain" else result.reason
    return f"stopped early after step {result.step} ({why})"
