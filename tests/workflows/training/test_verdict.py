"""The verdict on curves whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from tldet.engine.logging import JsonLog, read_log
from tldet.workflows.training.verdict import GAIN, judge

Values = Sequence["float | None"]
FALLING = [2.0, 1.5, 1.2, 1.0, 0.8, 0.6]
NAN = math.nan


def log(ap: Values, val: Values, train: Sequence[float], metric: str = "AP") -> list[dict[str, object]]:
    records: list[dict[str, object]] = []
    for number, (a, v, t) in enumerate(zip(ap, val, train, strict=True), 1):
        records.append({"type": "train", "step": 100 * number, "loss": t, "time": {}})
        records.append({"type": "val", "step": 100 * number, metric: a, "val_loss": v, "time": {}})
    return records


@pytest.mark.parametrize(
    ("ap", "val", "train", "kind", "since", "states"),
    [
        ([0.1, 0.2, 0.3, 0.35, 0.4, 0.45], [2, 1.6, 1.4, 1.3, 1.2, 1.1], FALLING, "improving", 400, "0.350 -> 0.450"),
        ([0.1, 0.3, 0.4, 0.41, 0.412, 0.411], [2, 1.5, 1.2, 1.2, 1.2, 1.21], FALLING, "converged", 400, "value, 0.412"),
        ([0.1, 0.3, 0.4, 0.39, 0.38, 0.36], [2, 1.5, 1.2, 1.3, 1.4, 1.6], FALLING, "over-fitting", 300, "1.2 to 1.6"),
        # the loss rises but the metric still improves: the usual over-confidence, no over-fitting yet
        ([0.1, 0.3, 0.4, 0.42, 0.45, 0.48], [2, 1.5, 1.2, 1.3, 1.4, 1.6], FALLING, "improving", 400, "rose from 1.2"),
        # both losses rise: no over-fitting
        ([0.1, 0.3, 0.4, 0.39, 0.38, 0.36], [2, 1.5, 1.2, 1.3, 1.4, 1.6], [2, 1.5, 1, 2, 3, 4], "declined", 300,
         "from 0.400 at step 300 to 0.360 at step 600; the validation loss rose from 1.2 at step 300 to 1.6"),
        ([0.1, 0.3, 0.4, 0.41, 0.412, 0.411], [NAN] * 6, FALLING, "converged", 400, "best value, 0.412"),
        ([0.4] * 6, [1] * 6, FALLING, "converged", 100, "since step 100"),
        # collapses
        ([0.1, 0.3, 0.45, 0.2, 0.1, 0.05], [1] * 6, FALLING, "collapsed", 300,
         "from 0.450 at step 300 to 0.050 at step 600; best.pt has the weights of step 300. Try a lower learning rate"),
        ([0.1, 0.3, 0.45, 0.2, 0.1, 0.05], [2, 1, 1, 3, 4, 5], FALLING, "collapsed", 300,
         "rose from 1 at step 200 to 5"),
        ([0.1, 0.3, 0.45, 0.2, 0.1, 0.05], [2, 1, 1, 3, 4, NAN], FALLING, "collapsed", 300, "loss is no longer finite"),
        ([0.1, 0.1, 0.5, 0.1, 0.1, 0.1], [1] * 6, FALLING, "collapsed", 300, "best.pt has the weights of step 300"),
        ([0.1, 0.3, 0.4, 0.41, 0.41, 0.1], [1] * 6, FALLING, "collapsed", 400, "at step 400 to 0.100"),
        ([0.1, 0.2, 0.3, 0.35, 0.5, 0.1], [1] * 6, FALLING, "collapsed", 500, "to 0.100"),
        ([0.1, 0.3, 0.4, 0.41, NAN, NAN], [1] * 6, FALLING, "collapsed", 400,
         "to a value that is not finite at step 600"),
        ([0.5, 0.1], [1, 1], [1, 1], "collapsed", 100, "from 0.500 at step 100 to 0.100"),
        # a NaN in between that the run recovered from
        ([0.1, NAN, 0.4, 0.41, 0.412, 0.411], [1] * 6, FALLING, "converged", 400, ""),
        # dips and oscillation
        ([0.1, 0.3, 0.4, 0.41, 0.41, 0.36], [1] * 6, FALLING, "declined", 400, "0.410 at step 400 to 0.360"),
        ([0.1, 0.2, 0.3, 0.35, 0.5, 0.4], [1] * 6, FALLING, "declined", 500, "best.pt has the weights of step 500"),
        ([0.3, 0.4, 0.3, 0.4, 0.3, 0.4], [1] * 6, FALLING, "unstable", 600, "from 0.400 at step 200 to 0.300"),
        ([0.4, 0.3, 0.4, 0.3, 0.4, 0.3], [1] * 6, FALLING, "declined", 100, "0.400 at step 100 to 0.300"),
        ([0.1, 0.2, 0.3, 0.395, 0.395, 0.404], [1] * 6, FALLING, "converged", 400, "since step 400"),
        ([0.1, 0.3, 0.4, 0.2, 0.4, 0.405], [1] * 6, FALLING, "converged", 500, "since step 500"),
        # no basis for a verdict
        ([0.001, 0.01, 0.02, 0.02, 0.02, 0.02], [2] * 6, FALLING, "unknown", 600, "hardly any progress"),
        ([0.0] * 6, [2] * 6, FALLING, "unknown", 600, "hardly any progress"),
        ([NAN] * 6, [2] * 6, FALLING, "unknown", 600, "hardly any progress"),
        ([0.1, 0.3], [1, 1], [1, 1], "unknown", 200, "2 validations are too few"),
        ([0.3], [1], [1], "unknown", 100, "1 validation is too few"),
        ([-1, -1, -1, -1], [1, 1, 1, 1], [1, 1, 1, 1], "unknown", 0, "no validation gave a value"),
        ([], [], [], "unknown", 0, "no validation gave a value"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("metric", ["AP", "top1"])
def test_verdicts(
    tmp_path: object, ap: Values, val: Values, train: Sequence[float], kind: str, since: int, states: str, metric: str
) -> None:
    lines = JsonLog(tmp_path / "log.jsonl")  # type: ignore[operator]
    lines.cut(0)
    for record in log(ap, val, train, metric):
        lines.write(record)
    verdict = judge(read_log(lines.path), metric)
    assert (verdict.kind, verdict.since) == (kind, since), verdict.text
    assert states.replace("AP", metric) in verdict.text


def test_converged_begins_a_stretch_that_lasts_to_the_end() -> None:
    """Over all curves of six validations at four levels."""
    levels = (0.1, 0.3, 0.395, 0.4)
    for number in range(len(levels) ** 6):
        ap = [levels[number // len(levels) ** location % len(levels)] for location in range(6)]
        verdict = judge(log(ap, [1] * 6, FALLING))
        late = [value for step, value in zip(range(100, 700, 100), ap, strict=True) if step >= verdict.since]
        if verdict.kind == "converged":
            assert len(late) > 1
            assert min(late) > max(ap) - GAIN
        assert (verdict.kind == "collapsed") == (ap[-1] < max(ap) / 2), "a fall below half is never anything else"


def test_validations_on_other_data_are_another_curve() -> None:
    """A run resumed with a harder validation split has not collapsed."""
    records = log([0.6, 0.7, 0.7, 0.2, 0.25, 0.3], [1, 1, 1, 2, 1.9, 1.8], FALLING)
    assert judge(records).kind == "collapsed"
    verdict = judge(records, comparable_from=301)
    assert (verdict.kind, "0.200 -> 0.300" in verdict.text) == ("improving", True), verdict.text
