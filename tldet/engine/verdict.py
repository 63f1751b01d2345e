"""What the curves of a finished run say: still improving, converged, or over-fitting, and what to try next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

LEAST = 3  # validations that make a curve
GAIN = 0.01  # of the metric; smaller differences between two validations are noise on the usual few hundred pictures
HARDLY = 0.05  # of the metric; below it curves say nothing of where they lead
RISE = 1.05  # the validation loss against its lowest value
Kind = Literal["unknown", "improving", "converged", "over-fitting"]


@dataclass(frozen=True)
class Verdict:
    """How a run stood at its end.

    Attributes:
        kind: the verdict in a word.
        text: the verdict with its numbers, and what to try next.
        since: the step from which on it holds.
    """

    kind: Kind
    text: str
    since: int


def judge(records: Sequence[Mapping[str, Any]], metric: str = "AP") -> Verdict:
    """Judge a run from its log (:func:`tldet.engine.log.read_log`).

    Over-fitting: the training loss still falls, the validation loss has risen by 5 % from its lowest value, and the
    metric has gained nothing since then. Improving: the last third of the run gained 0.01 of the metric over what came
    before it. Else it has converged.

    Args:
        records: "val" records with ``metric`` and ``val_loss``, "train" records with ``loss``.
        metric: larger is better.
    """
    curve = [(r["step"], r[metric], r.get("val_loss")) for r in records if _measured(r, metric)]
    last = curve[-1][0] if curve else 0
    if len(curve) < LEAST:
        count = "1 validation is" if len(curve) == 1 else f"{len(curve)} validations are"
        text = f"{count} too few to judge the run by: train longer, or measure more often (training.validate_every)"
        return Verdict("unknown", text, last)
    if max(value for _, value, _ in curve) < HARDLY:
        text = (
            f"hardly learnt: {metric} has not passed {HARDLY}. Try a longer run, pretrained weights if it started "
            "without any, or another learning rate; if it stays so, draw the data's own boxes and look"
        )
        return Verdict("unknown", text, last)
    return _overfitting(curve, records, metric) or _improving(curve, metric) or _converged(curve, metric)


def _measured(record: Mapping[str, Any], metric: str) -> bool:
    value = record.get(metric)
    return record["type"] == "val" and value is not None and value >= 0


Curve = Sequence[tuple[int, float, "float | None"]]


def _overfitting(curve: Curve, records: Sequence[Mapping[str, Any]], metric: str) -> Verdict | None:
    losses = [(loss, step) for step, _, loss in curve if loss is not None]
    if not losses:
        return None
    lowest, since = min(losses)
    before = max(value for step, value, _ in curve if step <= since)
    after = max((value for step, value, _ in curve if step > since), default=before)
    if losses[-1][0] < RISE * lowest or after > before + GAIN or not _still_falls(records, since):
        return None
    text = (
        f"over-fitting since step {since}: the validation loss rose from {lowest:.3g} to {losses[-1][0]:.3g} while "
        f"{metric} gained nothing; best.pt is from its best step. Try a shorter run, stronger augmentation, "
        "more weight decay, or more pictures"
    )
    return Verdict("over-fitting", text, since)


def _still_falls(records: Sequence[Mapping[str, Any]], since: int) -> bool:
    losses = [(r["step"], r["loss"]) for r in records if r["type"] == "train" and r.get("loss") is not None]
    early = [loss for step, loss in losses if step <= since]
    late = [loss for step, loss in losses if step > since]
    return bool(early and late) and sum(late) / len(late) < early[-1]


def _improving(curve: Curve, metric: str) -> Verdict | None:
    last = curve[-1][0]
    before = max((value for step, value, _ in curve if step <= last * 2 / 3), default=0.0)
    after = max(value for step, value, _ in curve if step > last * 2 / 3)
    if after < before + GAIN:
        return None
    since = max(step for step, _, _ in curve if step <= last * 2 / 3) if curve[0][0] <= last * 2 / 3 else 0
    text = (
        f"still improving: {metric} {before:.3f} -> {after:.3f} in the last third; a longer run is likely to gain more "
        "(start anew with twice the length: a schedule that has ended cannot be stretched)"
    )
    return Verdict("improving", text, since)


def _converged(curve: Curve, metric: str) -> Verdict:
    best = max(value for _, value, _ in curve)
    since = next(step for step, value, _ in curve if value > best - GAIN)
    text = (
        f"converged: {metric} is within {GAIN} of its best, {best:.3f}, since step {since}; more steps alone are "
        "unlikely to help. Try larger pictures, a stronger backbone or more pictures"
    )
    return Verdict("converged", text, since)
