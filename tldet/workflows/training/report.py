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


def report(outcome: Outcome, training: TrainSettings, validation: object | None, console: Console) -> None:
    """Print the metrics of the best checkpoint, how they developed, and the speed of training."""
    records = read_log(outcome.work_dir / LOG_NAME)
    if outcome.result is not None and outcome.checkpoint is not None:
        console.print(f"{outcome.checkpoint}: {_evaluated(outcome)}", markup=False, highlight=False)
        console.print(*outcome.result.tables(), sep="\n")
    if validation and training.validate_every is not None:  # one validation is no curve
        console.print(judge(records, training.best_metric).text, markup=False, highlight=False)
    if stopped := early(outcome.train, training):
        console.print(stopped, markup=False, highlight=False)
    console.print(f"{_speed(outcome.train, records)}; checkpoint: {outcome.checkpoint}")


def _evaluated(outcome: Outcome) -> str:
    """Return which weights were evaluated, and on which split."""
    assert outcome.checkpoint is not None
    found = checkpoint_outline(outcome.checkpoint)
    trained, section = found["meta"]["trained"], found["config"]["data"]["val"]
    val = section.get("annotations", f"data.val ({section['type']})")
    return f"step {trained['steps']} of {outcome.train.step}, evaluated on {val} in {trained['precision']}"


def _speed(result: TrainResult, records: list[dict[str, Any]]) -> str:
    rate = f", {result.seconds / result.step:.2f} s/step" if result.step else ""
    peak = next((r["time"].get("peak_mb") for r in reversed(records) if r["type"] == "train"), None)
    most = f", peak memory {peak:,.0f} MB" if peak else ""
    return f"{counted(result.step, 'step')} in {result.seconds:.0f} s of training{rate}{most}"


def early(result: TrainResult, training: TrainSettings) -> str:
    """A line on a run that ended before its length; empty for every other one."""
    if result.reason == "finished":
        return ""
    without = counted(training.patience or 0, "validation")
    why = f"no gain in {without}" if result.reason == "no gain" else result.reason
    return f"stopped after step {result.step}, before its end: {why}"
