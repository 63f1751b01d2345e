"""Pages of ``tldet compare``: differences, tables of a report for each detector, and the images that changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.evaluation.errors.made import grid_truth, noisy, perfect
from tests.workflows.report.written import gallery_data, write_files
from tldet.workflows.report.command import report
from tldet.workflows.report.compare import compare
from tldet.workflows.report.report import Report

COUNT = 12


def test_comparison_of_two_results_files(tmp_path: Path) -> None:
    truth = grid_truth(COUNT)
    _, dt = write_files(tmp_path, truth, noisy(truth, 1, 0.2))
    gt, better = write_files(tmp_path, truth, noisy(truth, 2, 0.02), "better.json")
    found = compare([dt, better], gt=gt, out=tmp_path / "page.html")
    text = found.sections[0].text[0]
    assert text.startswith("better.json - dt.json: +")
    assert text.endswith("better.json is better")
    assert found.summary["better.json - dt.json"] == pytest.approx(
        found.summary["better.json"] - found.summary["dt.json"]
    )
    assert "Images with the largest change in F1" in (tmp_path / "page.html").read_text()


def tables_of(found: Report) -> dict[str, Any]:
    return {table.name: table for table in found.tables}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """Comparison of three detectors that miss different objects of six images, 12 objects each."""
    folder = tmp_path_factory.mktemp("planted")
    truth = grid_truth(6)
    every = perfect(truth)
    objects = np.arange(len(truth.images))
    lost = {
        "a.json": [*objects[:18]],  # all of image 0, half of image 1
        "b.json": [*objects[36:39]],  # 3 of image 3
        "c.json": [*objects[:18], *objects[60:]],  # as a, and all of image 5
    }
    for name, rows in lost.items():
        gt, _ = write_files(folder, truth, every.take(np.setdiff1d(objects, rows)), name)
    return folder, compare([folder / name for name in lost], gt=gt, out=folder / "page.html", json=folder / "all.json")


def test_the_images_that_changed_most(planted: tuple[Path, Report]) -> None:
    folder, found = planted
    tables = tables_of(found)
    assert tables["images_1"].columns == ("image", "a.json", "b.json", "change")
    expected = [["0.jpg", 0, 1, 1], ["1.jpg", 2 / 3, 1, 1 / 3], ["3.jpg", 1, 6 / 7, -1 / 7]]
    assert [row[0] for row in tables["images_1"].rows] == [row[0] for row in expected]
    assert [row[1:] for row in tables["images_1"].rows] == [pytest.approx(row[1:]) for row in expected]
    assert tables["images_2"].rows == [["5.jpg", 1, 0, -1]]
    (section,) = [one for one in found.sections if one.title == "Images"]
    assert section.text[:2] == [
        "F1 of b.json is higher than that of a.json on 2 images, and lower on 1.",
        "F1 of c.json is higher than that of a.json on 0 images, and lower on 1.",
    ]
    data = gallery_data(folder / "page.html")
    assert [one["name"] for one in data["detectors"]] == ["a.json", "b.json", "c.json"]
    assert [one["name"] for one in data["images"]] == ["0.jpg", "5.jpg", "1.jpg", "3.jpg"]
    became_perfect = data["images"][0]
    assert [len(rows) for rows in became_perfect["detections"]] == [0, 12, 0]
    assert [min(scores) >= 0.5 for scores in became_perfect["found"]] == [False, True, False]
    assert {row[6] for row in became_perfect["detections"][1]} == {"Hit"}


def test_tables_of_a_report_for_each_detector(tmp_path: Path) -> None:
    truth = grid_truth(COUNT)
    files = [write_files(tmp_path, truth, noisy(truth, seed, 0.2), f"{seed}.json") for seed in (1, 2)]
    swapped = noisy(truth, 2, 0.2)
    swapped.categories[::4] = (swapped.categories[::4] + 1) % 3
    gt, dt = write_files(tmp_path, truth, swapped, "2.json")
    both = tables_of(compare([files[0][1], dt], gt=gt, out=tmp_path / "page.html"))
    single = [tables_of(report(gt=gt, dt=one, out=tmp_path / f"of_{one.name}.html")) for one in (files[0][1], dt)]
    for name in ("ap_by_size", "ap_by_aspect_ratio", "ap_by_crowding"):
        assert both[name].columns[1:] == ("objects", "1.json", "2.json")
        assert [row[:3] for row in both[name].rows] == [row[:3] for row in single[0][name].rows]
        assert [row[3] for row in both[name].rows] == [row[2] for row in single[1][name].rows]
    for column, one in enumerate(single, 2):
        counts = {(row[0], row[1]): row[column] for row in both["confusions"].rows}
        alone = {(row[0], row[1]): row[2] for row in one["confusions"].rows}
        assert {key: count for key, count in counts.items() if count} == alone
    assert sum(row[3] for row in both["confusions"].rows) > 10 > sum(row[2] for row in both["confusions"].rows)
    calibration = both["calibration"]
    assert [row[0] for row in calibration.rows] == ["1.json", "2.json"]
    for row, one in zip(calibration.rows, single, strict=True):
        bins = one["calibration"].rows
        parts = [(n, abs(score - correct)) for _, _, n, score, correct in bins if n]
        assert row[1] == pytest.approx(sum(n * gap for n, gap in parts) / sum(n for n, _ in parts))
        assert row[2] == pytest.approx(max(gap for _, gap in parts))
        assert row[4] < row[1]
