"""Assessment of a finished run by its curves (improving, converged, over-fitting, ...), with advice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tldet.text import are, counted

LEAST = 3  # validations needed for a verdict
GAIN = 0.01  # of the metric; smaller differences are noise for validation sets of a few hundred images
HARDLY = 0.05  # of the metric; lower curves are too noisy for advice
RISE = 1.05  # final validation loss relative to its minimum
LOST = 0.5  # of the best value; a run that ends below this has collapsed
_NEAR = 0.9  # of the best value; a run that ends below this is not improving
_Kind = Literal["unknown", "improving", "converged", "over-fitting", "declined", "unstable", "collapsed"]


@dataclass(frozen=True)
class Verdict:
    """State of a run at its end.

    Attributes:
        kind: the verdict as one word.
        text: the verdict with numbers and advice.
        since: first step of this state; for "collapsed" and "declined" the step of the best value.
    """

    kind: _Kind
    text: str
    since: int


class Point(NamedTuple):
    """One validation; ``value`` is 0 and ``finite`` False if the metric was not finite."""

    step: int
    value: float
    loss: float | None
    finite: bool = True


_Curve = Sequence[Point]


def judge(records: Sequence[Mapping[str, Any]], metric: str = "AP", comparable_from: int = 0) -> Verdict:
    """Judge a run from its log (:func:`tldet.engine.logging.read_log`).

    The first verdict that applies, in this order:

    - collapsed: the last value is below half of the best one, or not finite.
    - over-fitting: the training loss still falls, the validation loss ended 5 % above its minimum, and the metric
      did not improve after that minimum.
    - improving: the last value is at least 0.01 above all values of the first two thirds, and near the best one.
    - declined: the last value is more than 0.01 below the best one.
    - converged: at least the last two values are within 0.01 of the best one.
    - unstable: only the last value is near the best one, after an earlier drop.

    Args:
        records: "val" records with ``metric`` and ``val_loss``, "train" records with ``loss``.
        metric: larger is better.
        comparable_from: first step whose validation counts; earlier ones used other data or another metric.
    """
    validations = [r for r in records if r["type"] == "val" and r["step"] >= comparable_from]
    curve = [_point(r, metric) for r in validations if metric in r and r[metric] != -1]
    if not curve:
        return Verdict("unknown", f"no verdict: no validation gave a value of {metric}", 0)
    best = max(curve, key=lambda point: point.value)
    if best.value >= HARDLY and not (curve[-1].finite and curve[-1].value >= LOST * best.value):
        return _collapsed(curve, best, metric)
    if len(curve) < LEAST:
        count = f"{counted(len(curve), 'validation')} {are(len(curve))}"
        text = f"{count} too few for a verdict: train longer, or validate more often (training.validate_every)"
        return Verdict("unknown", text, curve[-1].step)
    if best.value < HARDLY:
        text = (
            f"hardly any progress: {metric} stayed below {HARDLY}. Try a longer run, pretrained weights or "
            "another learning rate; if that does not help, draw the annotations on the images to check them"
        )
        return Verdict("unknown", text, curve[-1].step)
    return (
        _overfitting(curve, best, records, metric)
        or _improving(curve, best, metric)
        or _declined(curve, best, metric)
        or _settled(curve, best, metric)
    )


def _point(record: Mapping[str, Any], metric: str) -> Point:
    """Read a validation of the log; null stands for a number that is not finite."""
    value, loss = record[metric], record.get("val_loss")
    if "val_loss" in record and loss is None:
        loss = math.nan
    finite = value is not None and math.isfinite(value)
    return Point(record["step"], value if finite else 0.0, loss, finite)


def _collapsed(curve: _Curve, best: Point, metric: str) -> Verdict:
    last = curve[-1]
    end = f"{last.value:.3f}" if last.finite else "a value that is not finite"
    text = (
        f"collapsed: {metric} fell from {best.value:.3f} at step {best.step} to {end} at step {last.step}"
        f"{_loss_note(curve)}; best.pt has the weights of step {best.step}. Try a lower learning rate (optimizer.lr), "
        "a longer warm-up (schedule.warmup_steps) or gradient clipping (training.clip_norm)"
    )
    return Verdict("collapsed", text, best.step)


def _lowest(curve: _Curve) -> Point | None:
    """Return the validation of lowest loss."""
    finite = [point for point in curve if point.loss is not None and math.isfinite(point.loss)]
    return min(finite, key=lambda point: (point.loss, point.step)) if finite else None


def _risen(curve: _Curve) -> Point | None:
    """Return the validation of lowest loss if the loss has risen since, else None."""
    lowest, last = _lowest(curve), curve[-1].loss
    if lowest is None or lowest.loss is None or last is None:
        return None
    return lowest if not math.isfinite(last) or last > max(RISE * lowest.loss, lowest.loss) else None


def _loss_note(curve: _Curve) -> str:
    """Return a note on a risen validation loss; empty if it has not risen."""
    lowest, last = _risen(curve), curve[-1].loss
    if lowest is None or last is None:
        return ""
    if not math.isfinite(last):
        return "; the validation loss is no longer finite"
    return f"; the validation loss rose from {lowest.loss:.3g} at step {lowest.step} to {last:.3g}"


def _overfitting(curve: _Curve, best: Point, records: Sequence[Mapping[str, Any]], metric: str) -> Verdict | None:
    lowest, last = _risen(curve), curve[-1].loss
    if lowest is None or last is None or not math.isfinite(last):
        return None
    before = max(point.value for point in curve if point.step <= lowest.step)
    if best.value > before + GAIN or not _still_falls(records, lowest.step):
        return None
    text = (
        f"over-fitting since step {lowest.step}: the validation loss rose from {lowest.loss:.3g} to {last:.3g} while "
        f"the training loss fell and {metric} did not improve; best.pt has the weights of step {best.step}. Try a "
        "shorter run, stronger augmentation, more weight decay or more images"
    )
    return Verdict("over-fitting", text, lowest.step)


def _still_falls(records: Sequence[Mapping[str, Any]], since: int) -> bool:
    losses = [(r["step"], r["loss"]) for r in records if r["type"] == "train" and r.get("loss") is not None]
    early = [loss for step, loss in losses if step <= since]
    late = [loss for step, loss in losses if step > since]
    return bool(early and late) and sum(late) / len(late) < early[-1]


def _improving(curve: _Curve, best: Point, metric: str) -> Verdict | None:
    last = curve[-1]
    early = [point for point in curve if point.step <= last.step * 2 / 3]
    before = max((point.value for point in early), default=0.0)
    if last.value < before + GAIN or last.value < _NEAR * best.value:
        return None
    text = (
        f"still improving: {metric} {before:.3f} -> {last.value:.3f} in the last third{_loss_note(curve)}; a longer "
        "run is likely to gain more (start a new run of twice the length; resuming this "
        "one with more steps raises its decayed learning rate again)"
    )
    return Verdict("improving", text, early[-1].step if early else 0)


def _declined(curve: _Curve, best: Point, metric: str) -> Verdict | None:
    last = curve[-1]
    if last.value > best.value - GAIN:
        return None
    text = (
        f"declined: {metric} fell from {best.value:.3f} at step {best.step} to {last.value:.3f} at step {last.step}"
        f"{_loss_note(curve)}; best.pt has the weights of step {best.step}. Try a lower learning rate (optimizer.lr) "
        "or a shorter run"
    )
    return Verdict("declined", text, best.step)


def _settled(curve: _Curve, best: Point, metric: str) -> Verdict:
    """Return "converged" if the values stayed near the best one until the end, else "unstable"."""
    outside = [i for i, point in enumerate(curve) if point.value <= best.value - GAIN]
    since = curve[outside[-1] + 1 if outside else 0]
    peak = max(curve[:-1], key=lambda point: point.value)
    lowest = min(point.value for point in curve if point.step >= peak.step)
    if since.step == curve[-1].step and lowest > peak.value - GAIN:
        since = peak  # the last value is the best, but within GAIN of a plateau
    if since.step == curve[-1].step:
        text = (
            f"unstable: {metric} fell from {peak.value:.3f} at step {peak.step} to {lowest:.3f} and ended at "
            f"{curve[-1].value:.3f}{_loss_note(curve)}; best.pt has the weights of step {best.step}. Try a lower "
            "learning rate (optimizer.lr)"
        )
        return Verdict("unstable", text, since.step)
    within = max(GAIN, best.value - min(point.value for point in curve if point.step >= since.step))
    text = (
        f"converged: {metric} is within {within:.2g} of its best value, {best.value:.3f}, since step {since.step}"
        f"{_loss_note(curve)}; more steps alone are unlikely to help. Try larger images, a stronger backbone or "
        "more images"
    )
    return Verdict("converged", text, since.step)
