"""Display of results."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from tldet.engine.state import TrainResult
from tldet.evaluation.report import CocoResult
from tldet.workflows.training.outcome import Outcome

RESULT = CocoResult(AP=0.5, AP50=0.75, per_class={"<cat>": 0.5, "dog": -1.0}, images=3, detections=9)
TRAINED = TrainResult(4, 0.5, 4, {"AP": 0.5}, 12.3, "finished", Path("run/a.pt"), Path("run/best.pt"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (RESULT, "CocoResult(bbox AP 0.500, AP50 0.750; 3 images, 2 classes)"),
        (CocoResult(type="segm", bbox=RESULT), "CocoResult(segm AP -, AP50 -; bbox AP 0.500; 0 images, 0 classes)"),
        (
            Outcome(Path("run"), TRAINED, RESULT),
            "Outcome(4 steps, checkpoint 'run/best.pt', CocoResult(bbox AP 0.500, AP50 0.750; 3 images, 2 classes))",
        ),
        (Outcome(Path("run"), TRAINED, None), "Outcome(4 steps, checkpoint 'run/best.pt', not evaluated)"),
    ],
)
def test_repr_is_one_short_line(value: object, expected: str) -> None:
    assert repr(value) == expected


def test_html_shows_classes_and_escapes_them() -> None:
    shown = Outcome(Path("run"), TRAINED, RESULT)._repr_html_()
    for text in ("run/best.pt", "12 s", "&lt;cat&gt;", "<td>dog</td><td>-</td>", "AP75 -", "3 images, 9 detections"):
        assert text in shown
    assert "<cat>" not in shown
    both = CocoResult(type="segm", bbox=RESULT)._repr_html_()
    assert both.count("<table>") == 2


def test_a_restored_result_is_equal() -> None:
    assert CocoResult.of(asdict(RESULT)) == RESULT
