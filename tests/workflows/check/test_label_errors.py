"""Probable label errors from predictions: the kind, the score, and what is no error."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tldet.data.checks.findings import Finding
from tldet.data.checks.records import Records
from tldet.errors import ConfigError, DataError
from tldet.workflows.check.check import check
from tldet.workflows.check.label_errors import Predicted, compare_labels

Box = tuple[float, float, float, float]
CAT, DOG, COW = 0, 1, 2


def records_of(labels: list[tuple[int, Box, bool]]) -> Records:
    """One image of 100 x 100 with labels: class, x, y, width, height, crowd."""
    count = len(labels)
    return Records(
        "train",
        Path("a.json"),
        np.array([7]),
        ["a.jpg"],
        np.array([[100, 100]]),
        ["cat", "dog", "cow"],
        [1, 2, 3],
        np.zeros(count, np.int64),
        np.array([label for label, *_ in labels], np.int64),
        np.array([box for _, box, _ in labels], np.float64).reshape(-1, 4),
        np.array([crowd for *_, crowd in labels], np.bool_),
        np.arange(1, count + 1),
        np.full(count, np.nan),
    )


def errors(labels: list[tuple[int, Box, bool]], predictions: list[tuple[int, Box, float]]) -> list[Finding]:
    boxes = np.array([box for _, box, _ in predictions], np.float64).reshape(-1, 4)
    corners = np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)
    scores = np.array([score for *_, score in predictions], np.float64)
    found = Predicted(corners, scores, np.array([label for label, *_ in predictions], np.int64))
    known = np.array([True, True, False])
    return list(compare_labels(records_of(labels), 0, np.arange(len(labels)), found, known, 0.5))


HERE, NEAR, ELSEWHERE = (10.0, 10.0, 40.0, 40.0), (16.0, 16.0, 40.0, 40.0), (60.0, 60.0, 30.0, 30.0)


@pytest.mark.parametrize(
    ("labels", "predictions", "expected"),
    [
        ([(CAT, HERE, False)], [(CAT, HERE, 0.9)], []),
        ([], [(CAT, HERE, 0.9)], [("label-missing", None, 0.9)]),
        ([], [(CAT, HERE, 0.4)], []),
        ([(CAT, HERE, False)], [], [("label-spurious", 1, 0.6)]),
        ([(CAT, HERE, False)], [(DOG, HERE, 0.9)], [("label-class", 1, 0.9)]),
        ([(CAT, HERE, False)], [(DOG, HERE, 0.9), (CAT, HERE, 0.3)], [("label-class", 1, 0.6)]),
        ([(CAT, HERE, False)], [(DOG, HERE, 0.3), (CAT, HERE, 0.9)], []),
        ([(CAT, NEAR, False)], [(CAT, HERE, 0.9)], [("label-loose", 1, 0.9 * (1 - 1156 / 2044) / 0.5)]),
        ([(CAT, (30, 30, 40, 40), False)], [(CAT, HERE, 0.9)], [("label-loose", 1, 0.9)]),
        ([(CAT, ELSEWHERE, False)], [(CAT, HERE, 0.9)], [("label-spurious", 1, 0.6), ("label-missing", None, 0.9)]),
        ([(COW, HERE, False)], [], []),
        ([(CAT, HERE, True)], [(CAT, (12, 12, 10, 10), 0.9)], []),
        ([(CAT, (10, 10, 0, 5), False)], [], []),
    ],
)
def test_errors_of_an_image(
    labels: list[tuple[int, Box, bool]],
    predictions: list[tuple[int, Box, float]],
    expected: list[tuple[str, int | None, float]],
) -> None:
    found = [(one.code, one.annotation, one.score) for one in errors(labels, predictions)]
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    assert [one[2] for one in found] == pytest.approx([one[2] for one in expected])


def test_a_finding_names_the_place() -> None:
    (finding,) = errors([], [(DOG, HERE, 0.9)])
    assert (finding.file, finding.image, finding.box) == ("a.json", "a.jpg", (10, 10, 50, 50))
    assert "'dog' with score 0.90" in finding.message


def test_a_checkpoint_ranks_planted_errors(run: Path, digits: Path, tmp_path: Path) -> None:
    """A detector of a few steps runs through; the findings are sorted by score."""
    report = check(digits / "train", model=run / "best.pt", score=0.05, fast=True, html=tmp_path / "page.html")
    scores = [one.score for one in report.findings if one.score is not None]
    assert scores
    assert scores == sorted(scores, reverse=True)
    assert {one.code for one in report.findings if one.score is not None} <= {
        "label-missing",
        "label-spurious",
        "label-class",
        "label-loose",
    }
    assert "data:image/jpeg" in (tmp_path / "page.html").read_text()


@pytest.mark.slow
def test_cross_validation_judges_every_training_image_once(digits: Path, tmp_path: Path) -> None:
    """With two detectors of one step, which find nothing certain, every label is a finding, once."""
    out = tmp_path / "found.json"
    options = {"cross_validate": 2, "steps": 1, "runs": tmp_path / "runs", "device": "cpu", "score": 1.0}
    check(digits, fast=True, json=out, **options)  # type: ignore[arg-type]
    whole = json.loads(next((digits / "train").glob("*.json")).read_text())
    judged = [
        one["annotation"]
        for one in json.loads(out.read_text())["findings"]
        if one["code"].startswith("label-") and one["annotation"] is not None
    ]
    assert len(judged) == len(set(judged))
    assert set(judged) <= {one["id"] for one in whole["annotations"]}
    assert len(judged) > 0.5 * len(whole["annotations"])
    with pytest.raises(ConfigError, match="folds of another check"):
        check(digits, fast=True, **{**options, "cross_validate": 3})  # type: ignore[arg-type]


def test_bad_input(tmp_path: Path, shared: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be combined"):
        check(tmp_path, model="a.pt", cross_validate=2)
    with pytest.raises(DataError, match="no training split"):
        check(shared / "data" / "eval", cross_validate=2, fast=True, runs=tmp_path)
