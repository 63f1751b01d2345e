"""Reports on masks: of results files, and of a detector with masks, whose boxes can be analyzed too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.workflows.report.written import gallery_data
from tldet.errors import DataError
from tldet.workflows.evaluate import evaluate
from tldet.workflows.report.command import report
from tldet.workflows.report.compare import compare
from tldet.workflows.report.report import Report
from tldet.workflows.test import test as evaluate_checkpoint
from tldet.workflows.training.finetune import finetune

SMALL = ["data.loader.batch_size=2", "model.head.rpn.nms_post=[100, 50]"]


@pytest.mark.slow
def test_results_files(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data" / "eval" / "coco_fake100"
    gt, dt = folder / "gt.json", folder / "dets_segm.json"
    found = report(gt=gt, dt=dt, type="segm", out=tmp_path / "page.html")
    expected = evaluate(gt, dt, type="segm")
    assert (found.summary["AP"], found.summary["AP50"]) == (expected.AP, expected.AP50)
    assert found.subtitle.endswith("; masks")
    images = gallery_data(tmp_path / "page.html")["images"]
    rows = [row for image in images for row in [*image["objects"], *image["detections"][0]]]
    outlined = [row for row in rows if row[7]]
    assert len(outlined) > 0.95 * len(rows), "masks without pixels have no outline"
    assert all(re.fullmatch(r"(M\d+ \d+(L\d+ \d+)*Z)+", row[7]) for row in outlined)
    both = compare([dt, dt], gt=gt, type="segm", out=tmp_path / "both.html")
    assert both.sections[0].text[0].endswith("not significant on these images")
    names = [f"{dt} ({number})" for number in (1, 2)]
    assert [both.summary[name] for name in names] == [expected.AP] * 2


@pytest.fixture(scope="module")
def masked(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of a detector with masks."""
    out = tmp_path_factory.mktemp("masked") / "out"
    finetune(digits, out=out, model="mask_rcnn_lite0", steps=3, cfg_options=SMALL, report=False)
    return out


def sections_of(found: Report) -> dict[str, Any]:
    return {one.title: one for one in found.sections}


def test_a_detector_with_masks(masked: Path, tmp_path: Path) -> None:
    expected = evaluate_checkpoint(masked / "best.pt", split="val", precision="fp32")
    assert expected.bbox is not None
    given: dict[str, Any] = {"split": "val", "precision": "fp32"}
    found = report(masked, out=tmp_path / "page.html", **given)
    assert found.subtitle.endswith("; masks")
    assert found.summary["AP"] == expected.AP
    (table,) = sections_of(found)["Boxes"].tables
    assert {row[0]: row[1] for row in table.rows}["AR100"] == expected.bbox.AR100
    image = gallery_data(tmp_path / "page.html")["images"][0]
    assert image["source"].startswith("data:image/jpeg;base64,")
    assert any(row[7].startswith("M") for row in image["objects"])
    boxes = report(masked, type="bbox", out=tmp_path / "boxes.html", **given)
    assert boxes.subtitle.endswith("; boxes")
    assert (boxes.summary["AP"], boxes.summary["AR100"]) == (expected.bbox.AP, expected.bbox.AR100)
    assert "Boxes" not in sections_of(boxes)
    assert not any(row[7] for image in gallery_data(tmp_path / "boxes.html")["images"] for row in image["objects"])


def test_boxes_and_masks_of_two_detectors(masked: Path, run: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"out": tmp_path / "page.html", "split": "val"}
    with pytest.raises(DataError, match=r"a different detection type \(boxes or masks\) than .*; use --type bbox"):
        compare([run, masked], **given)
    with pytest.raises(DataError, match="predicts no masks; use --type bbox"):
        compare([masked, run], type="segm", **given)
    found = compare([run, masked], type="bbox", **given)
    assert len(found.sections[0].tables[0].rows) == 2
