"""The verdict on curves whose answer is known."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tldet.engine.verdict import judge


def log(ap: Sequence[float], val: Sequence[float | None], train: Sequence[float]) -> list[dict[str, object]]:
    records: list[dict[str, object]] = []
    for number, (a, v, t) in enumerate(zip(ap, val, train, strict=True), 1):
        records.append({"type": "train", "step": 100 * number, "loss": t})
        records.append({"type": "val", "step": 100 * number, "AP": a, "val_loss": v})
    return records


FALLING = [2.0, 1.5, 1.2, 1.0, 0.8, 0.6]


@pytest.mark.parametrize(
    ("ap", "val", "train", "kind", "since", "says"),
    [
        ([0.1, 0.2, 0.3, 0.35, 0.4, 0.45], [2, 1.6, 1.4, 1.3, 1.2, 1.1], FALLING, "improving", 400, "0.350 -> 0.450"),
        ([0.1, 0.3, 0.4, 0.41, 0.412, 0.411], [2, 1.5, 1.2, 1.2, 1.2, 1.21], FALLING, "converged", 400, "best, 0.412"),
        ([0.1, 0.3, 0.4, 0.39, 0.38, 0.36], [2, 1.5, 1.2, 1.3, 1.4, 1.6], FALLING, "over-fitting", 300, "1.2 to 1.6"),
        # the loss rises but the metric goes on rising: the usual over-confidence, no over-fitting yet
        ([0.1, 0.3, 0.4, 0.42, 0.45, 0.48], [2, 1.5, 1.2, 1.3, 1.4, 1.6], FALLING, "improving", 400, "the last third"),
        # both losses rise: that is no over-fitting but a run that falls apart
        ([0.1, 0.3, 0.4, 0.39, 0.38, 0.36], [2, 1.5, 1.2, 1.3, 1.4, 1.6], [2, 1.5, 1, 2, 3, 4], "converged", 300, ""),
        ([0.1, 0.3, 0.4, 0.41, 0.412, 0.411], [None] * 6, FALLING, "converged", 400, "best, 0.412"),
        ([0.001, 0.01, 0.02, 0.02, 0.02, 0.02], [2] * 6, FALLING, "unknown", 600, "hardly learnt"),
        ([0.1, 0.3], [1, 1], [1, 1], "unknown", 200, "2 validations"),
        ([-1, -1, -1, -1], [1, 1, 1, 1], [1, 1, 1, 1], "unknown", 0, "0 validations"),
    ],
)  # fmt: skip
def test_verdicts(
    ap: Sequence[float], val: Sequence[float | None], train: Sequence[float], kind: str, since: int, says: str
) -> None:
    verdict = judge(log(ap, val, train))
    assert (verdict.kind, verdict.since) == (kind, since)
    assert says in verdict.text
