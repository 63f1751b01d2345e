"""``tldet browse``: a self-contained page, with labels before and after augmentation."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tldet.cli.main import main
from tldet.data.index import AnnotationIndex
from tldet.errors import ConfigError, DataError
from tldet.workflows.browse.browse import browse
from tldet.workflows.browse.statistics import class_table, plots


def content(path: Path) -> dict[str, Any]:
    found = re.search(r'id="view-data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    values: dict[str, Any] = json.loads(found[1])
    return values


def test_a_page(digits: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    report = browse(digits, html=page, augmented=True, augment=["HorizontalFlip(p=1.0)"], count=5)
    assert (report.shown, report.images) == (5, 16)
    values, text = content(page), page.read_text(encoding="utf-8")
    index = AnnotationIndex.load(digits / "train" / "_annotations.coco.json")
    assert values["classes"] == list(index.class_names)
    assert len(values["images"]) == 5
    for image in values["images"]:
        before, after = image["views"]
        assert (before["title"], after["title"]) == ("labels", "augmented")
        assert before["source"].startswith("data:image/jpeg;base64,")
        assert [row[4] for row in before["rows"]] == [row[4] for row in after["rows"]]
        scale = after["width"] / before["width"]
        for old, new in zip(before["rows"], after["rows"], strict=True):
            assert new[0] == pytest.approx(after["width"] - (old[0] + old[2]) * scale, abs=1), "mirrored"
            assert new[2] == pytest.approx(old[2] * scale, abs=1)
    assert not re.findall(r'(?:src|href)="(?!data:|#)', text), "nothing is loaded"


def test_predictions_next_to_labels(digits: Path, run: Path, tmp_path: Path) -> None:
    browse(digits, html=tmp_path / "page.html", split="test", model=run / "best.pt", count=2, device="cpu")
    for image in content(tmp_path / "page.html")["images"]:
        labels, predictions = image["views"]
        assert predictions["title"] == "detections"
        assert (predictions["width"], predictions["height"]) == (labels["width"], labels["height"])
        assert all(0.05 <= row[5] <= 1 for row in predictions["rows"])
        assert all(row[5] == -1 for row in labels["rows"])
    assert 'id="view-score"' in (tmp_path / "page.html").read_text()


def test_statistics(digits: Path) -> None:
    index = AnnotationIndex.load(digits / "train" / "_annotations.coco.json")
    table = class_table(index)
    assert sum(int(row[1] or 0) for row in table.rows) == len(index.boxes)
    for plot in plots(index):
        assert sum(plot.series[0].y) == pytest.approx(1)
        assert len(plot.series[0].x) == len(plot.series[0].y)
    counts = plots(index)[2].series[0]
    assert list(counts.x)[:4] == ["0", "1", "2", "3 to 4"]


def test_text_of_the_data_is_no_markup(digits: Path, tmp_path: Path) -> None:
    source = json.loads((digits / "train" / "_annotations.coco.json").read_text())
    source["categories"][0]["name"] = "</script><script>alert(1)</script>"
    (tmp_path / "a.json").write_text(json.dumps(source))
    browse(tmp_path / "a.json", images=digits / "train", html=tmp_path / "page.html", count=1)
    assert "<script>alert" not in (tmp_path / "page.html").read_text()
    assert source["categories"][0]["name"] in content(tmp_path / "page.html")["classes"]


def test_errors(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="--augment light strong: light cannot be combined"):
        browse(digits, html=tmp_path / "a.html", augmented=True, augment=["light", "strong"])
    with pytest.raises(DataError, match=r"has no test split \(splits: train\)"):
        browse(digits / "train" / "_annotations.coco.json", html=tmp_path / "a.html", split="test")
    assert not (tmp_path / "a.html").exists()
    assert main(["browse", str(tmp_path / "nothing"), "--html", str(tmp_path / "a.html")]) == 2
    assert "nothing: no such folder" in capsys.readouterr().err
