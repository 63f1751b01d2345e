"""Scoring files and streams: what is filled in, left out, kept and written."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tldet.errors import DataError
from tldet.evaluation.coco import CocoEvaluator, evaluate_files
from tldet.evaluation.engines import ENGINES
from tldet.evaluation.loading import load_ground_truth
from tldet.evaluation.report import METRICS, CocoResult
from tldet.structures.detections import Detections
from tldet.structures.target import Target
from tldet.workflows.evaluate import evaluate

GT: dict[str, Any] = {
    "images": [{"id": 40, "width": 100, "height": 80}, {"id": 9, "width": 100, "height": 80}],
    "categories": [{"id": 30, "name": "dog"}, {"id": 5, "name": "cat"}],
    "annotations": [
        {"id": 0, "image_id": 40, "category_id": 30, "bbox": [10, 10, 40, 40],
         "segmentation": [[10, 10, 50, 10, 50, 50, 10, 50]]},
        {"id": 2, "image_id": 9, "category_id": 5, "bbox": [20, 20, 30, 30],
         "segmentation": [[20, 20, 50, 20, 50, 50, 20, 50]]},
    ],
}  # fmt: skip
ONE = pytest.approx(1.0, abs=1e-12)  # the reference itself gives 1 - 2e-16
DT = [
    {"image_id": 40, "category_id": 30, "bbox": [10, 10, 40, 40], "score": 0.9},
    {"image_id": 9.0, "category_id": 5, "bbox": [20, 20, 0, 30], "score": 0.8},
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("type", ["bbox", "segm"])
def test_missing_area_and_iscrowd_are_filled(type: Any, engine: Any, caplog: pytest.LogCaptureFixture) -> None:
    records = [{**record, "score": 0.5} for record in GT["annotations"]]
    caplog.set_level(logging.INFO)
    result = evaluate_files(GT, records, type=type, engine=engine)
    assert (result.AP, result.APs, result.APm, result.APl) == (ONE, ONE, ONE, -1.0)
    assert "2 annotations without a positive area" in caplog.text
    assert "2 annotations without iscrowd" in caplog.text


@pytest.mark.parametrize("engine", ENGINES)
def test_zero_size_detections_are_legal(engine: Any, capfd: pytest.CaptureFixture[str]) -> None:
    result = evaluate_files(GT, DT, engine=engine)
    assert result.per_class == {"cat": 0.0, "dog": ONE}
    assert pytest.approx(0.5) == result.AP
    assert capfd.readouterr() == ("", "")  # the engines talk; their talk is not let through


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("type", ["bbox", "segm"])
def test_empty(type: Any, engine: Any) -> None:
    nothing = evaluate_files(GT, [], type=type, engine=engine)
    assert (nothing.AP, nothing.AR100, nothing.APl, nothing.per_class["cat"]) == (0.0, 0.0, -1.0, 0.0)
    no_objects = evaluate_files({**GT, "annotations": []}, [], type=type, engine=engine)
    assert set(no_objects.numbers().values()) == {-1.0}
    no_images = evaluate_files({**GT, "annotations": [], "images": []}, [], type=type, engine=engine)
    assert no_images.per_class == {"cat": -1.0, "dog": -1.0}


@pytest.mark.parametrize("engine", ENGINES)
def test_only_some_images(engine: Any) -> None:
    assert evaluate_files(GT, DT, engine=engine, image_ids=[40]).AP == ONE
    assert evaluate_files(GT, DT, engine=engine, image_ids=[9]).per_class == {"cat": 0.0, "dog": -1.0}
    assert evaluate_files(GT, DT, engine=engine, image_ids=[]).AP == -1.0


@pytest.mark.parametrize("engine", ENGINES)
def test_masks_scored_as_boxes(engine: Any) -> None:
    records = [{**record, "score": 0.5} for record in GT["annotations"]]
    for record in records:
        del record["bbox"]
    assert evaluate_files(GT, records, engine=engine).AP == ONE


@pytest.mark.parametrize("engine", ENGINES)
def test_size_of_a_mask_with_a_box_is_the_boxs_as_in_pycocotools(engine: Any) -> None:
    extra = {"image_id": 40, "category_id": 30, "score": 0.95, "segmentation": [[60, 60, 70, 60, 70, 70]]}
    records = [{**record, "score": 0.5, "bbox": [0, 0, 100, 80]} for record in GT["annotations"]]
    boxed = evaluate_files(GT, [*records, {**extra, "bbox": [0, 0, 50, 50]}], type="segm", engine=engine)
    assert boxed.APm == pytest.approx(0.5)  # 2,500 pixels: a false positive of medium size
    bare = [{key: value for key, value in record.items() if key != "bbox"} for record in records]
    assert evaluate_files(GT, [*bare, extra], type="segm", engine=engine).APm == ONE  # 50 pixels: not medium


def test_equal_class_names_are_distinguished() -> None:
    categories = [{"id": 30, "name": "thing"}, {"id": 5, "name": "thing"}]
    assert evaluate_files({**GT, "categories": categories}, DT).per_class == {"thing (id 5)": 0.0, "thing (id 30)": ONE}


def test_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "dt.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(DT).encode())
    assert pytest.approx(0.5) == evaluate_files(GT, tmp_path / "dt.json").AP


def test_json(tmp_path: Path) -> None:
    result = evaluate(GT, DT, json=tmp_path / "new" / "numbers.json")
    written = json.loads((tmp_path / "new" / "numbers.json").read_text())
    assert list(written) == [*METRICS, "per_class"]
    assert written == result.to_dict()
    assert written["per_class"] == {"cat": 0.0, "dog": ONE}
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"numbers.json: cannot be written \(Not a directory\)"):
        evaluate(GT, DT, json=tmp_path / "file" / "numbers.json")


def test_table() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(CocoResult(AP=0.25, AP50=0.5, AP75=0.125, per_class={"cat": 0.25, "[red]": -1.0}).table())
    lines = [line.replace("│", " ").split() for line in capture.get().splitlines()]
    assert ["cat", "0.250", "-"] in lines
    assert ["[red]", "-", "-"] in lines
    assert ["all", "0.250", "0.500"] in lines
    assert ["AP75", "0.125"] in lines
    assert ["APs", "-"] in lines


def test_no_torch_for_files() -> None:
    code = (
        "import sys, tldet.workflows.evaluate as e; e.evaluate({'images': [], 'annotations': [], 'categories': []}, [])"
    )
    code += "; print('numpy' in sys.modules, 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def detections(boxes: list[list[float]], scores: list[float], labels: list[int], masks: Any = None) -> Detections:
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores),
        torch.tensor(labels).long(),
        masks,
    )


def on(image_id: int) -> Target:
    """A target that names its image."""
    return Target(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), image_id=image_id)


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluator(engine: Any, tmp_path: Path) -> None:
    evaluator = CocoEvaluator(load_ground_truth(GT, "bbox"), category_ids=[5, 30, None], engine=engine)
    assert evaluator.compute().AP == -1.0
    evaluator.update([on(40)], [detections([[10.1, 10.1, 51.3, 51.7], [0, 0, 5, 5]], [0.9, 0.3], [1, 2])])
    first = evaluator.compute()
    assert (first.images, first.detections) == (1, 1)
    assert first.per_class == {"cat": -1.0, "dog": pytest.approx(0.9)}
    evaluator.update([on(9)], [detections([], [], [])])
    both = evaluator.compute()
    assert both.per_class == {"cat": 0.0, "dog": pytest.approx(0.9)}
    (record,) = evaluator.results
    assert (record["image_id"], record["category_id"]) == (40, 30)
    (tmp_path / "dt.json").write_text(json.dumps(evaluator.results))
    assert evaluate_files(GT, tmp_path / "dt.json", engine=engine) == CocoResult(**vars(both))
    evaluator.reset()
    assert evaluator.results == []


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluator_of_masks(engine: Any) -> None:
    evaluator = CocoEvaluator(load_ground_truth(GT, "segm"), category_ids=[5, 30], engine=engine)
    masks = torch.zeros(2, 80, 100, dtype=torch.uint8)
    masks[0, 10:50, 10:50] = 1
    evaluator.update([on(40)], [detections([[0, 0, 100, 80], [0, 0, 1, 1]], [0.9, 0.8], [1, 1], masks)])
    evaluator.update([on(9)], [detections([], [], [])])
    result = evaluator.compute()
    assert result.per_class == {"cat": 0.0, "dog": ONE}
    assert all("bbox" not in record for record in evaluator.results)
    assert evaluate_files(GT, json.loads(json.dumps(evaluator.results)), type="segm", engine=engine) == result


@pytest.mark.parametrize("type", ["bbox", "segm"])
def test_images_in_any_order_and_equal_scores_give_the_reference_s_numbers(type: Any) -> None:
    random = np.random.default_rng(3)

    def boxes(count: int) -> Any:
        corner, side = random.integers(0, 60, (count, 2)), random.integers(4, 40, (count, 2))
        return np.concatenate([corner, side], 1)

    annotations = []
    for image in range(1, 31):
        for x, y, w, h in boxes(int(random.integers(0, 6))).tolist():
            outline = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            about = {"id": len(annotations) + 1, "image_id": image, "category_id": int(random.integers(1, 4))}
            about |= {"bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": outline}
            annotations.append(about)
    gt = {
        "images": [{"id": image, "height": 100, "width": 100} for image in range(1, 31)],
        "annotations": annotations,
        "categories": [{"id": key, "name": f"class {key}"} for key in (1, 2, 3)],
    }
    evaluators = [
        CocoEvaluator(load_ground_truth(gt, type), category_ids=[1, 2, 3], engine=engine) for engine in ENGINES
    ]
    for image in random.permutation(np.arange(1, 31))[:25].tolist():
        own = [a["bbox"] for a in annotations if a["image_id"] == image]
        xywh = np.concatenate(
            [np.array(own, np.int64).reshape(-1, 4) + random.integers(-3, 4, (len(own), 4)), boxes(9)]
        )
        xywh[:, :2], xywh[:, 2:] = xywh[:, :2].clip(0), xywh[:, 2:].clip(1)
        masks = torch.zeros(len(xywh), 100, 100, dtype=torch.uint8)
        for mask, (x, y, w, h) in zip(masks, xywh.tolist(), strict=True):
            mask[y : y + h, x : x + w] = 1
        corners = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1)
        scores, labels = random.integers(1, 5, len(xywh)) / 8, random.integers(0, 3, len(xywh))
        for evaluator in evaluators:
            evaluator.update([on(image)], [detections(corners.tolist(), scores.tolist(), labels.tolist(), masks)])
    ours, reference = (evaluator.compute() for evaluator in evaluators)
    assert 0 < ours.AP < 1
    assert replace(ours, engine="pycocotools") == reference


def test_evaluator_refuses() -> None:
    with pytest.raises(DataError, match=r"no category id 6.*only 5, 30"):
        CocoEvaluator(load_ground_truth(GT, "bbox"), category_ids=[5, 6])
    evaluator = CocoEvaluator(load_ground_truth(GT, "bbox"), category_ids=[5, 30])
    with pytest.raises(DataError, match="unknown image_id 41"):
        evaluator.update([on(41)], [detections([], [], [])])
    with pytest.raises(DataError, match="image_id 40: row 1 has score nan"):
        evaluator.update([on(40)], [detections([[0, 0, 1, 1]] * 2, [0.5, float("nan")], [0, 0])])
    with pytest.raises(DataError, match=r"image_id 40: row 0 has bbox .*inf"):
        evaluator.update([on(40)], [detections([[0, 0, 1, float("inf")]], [0.5], [0])])
    assert evaluator.results == []
    with pytest.raises(ValueError, match="masks"):
        CocoEvaluator(load_ground_truth(GT, "segm"), category_ids=[5, 30]).update(
            [on(40)], [detections([[0, 0, 1, 1]], [0.5], [0])]
        )
    evaluator.update([on(40)], [detections([], [], [])])
    with pytest.raises(ValueError, match="shorter"):
        evaluator.update([on(9), on(40)], [detections([], [], [])])
    evaluator.update([on(9)], [detections([], [], [])])
    with pytest.raises(ValueError, match="was added before"):
        evaluator.update([on(40)], [detections([], [], [])])


def test_update_keeps_its_own_copy() -> None:
    evaluator = CocoEvaluator(load_ground_truth(GT, "bbox"), category_ids=[5, 30])
    found = detections([[10, 10, 50, 50]], [0.9], [1])
    evaluator.update([on(40)], [found])
    found.boxes.zero_(), found.scores.zero_()
    np.testing.assert_array_equal(evaluator.results[0]["bbox"], [10, 10, 40, 40])
    assert evaluator.results[0]["score"] == pytest.approx(0.9)


def partly(*stated: list[int] | None) -> dict[str, Any]:
    """GT with what its images 40 and 9 were labeled for."""
    keys = [{} if ids is None else {"labeled_category_ids": ids} for ids in stated]
    return {**GT, "images": [{**image, **key} for image, key in zip(GT["images"], keys, strict=True)]}


WRONG_CAT = {"image_id": 40, "category_id": 5, "bbox": [60, 10, 20, 20], "score": 0.95}  # before the right one
RIGHT = [{**record, "score": 0.9} for record in GT["annotations"]]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("agnostic", [False, True])
def test_classes_that_are_not_annotated_on_an_image_are_not_evaluated(
    engine: Any, agnostic: bool, caplog: pytest.LogCaptureFixture
) -> None:
    given: Any = {"engine": engine, "agnostic": agnostic}
    wrong = evaluate_files(GT, [*RIGHT, WRONG_CAT], **given)
    without = evaluate_files(GT, RIGHT, **given)
    assert wrong.AP < without.AP == ONE
    assert "labeled" not in caplog.text
    caplog.set_level(logging.INFO)
    left = evaluate_files(partly([30], None), [*RIGHT, WRONG_CAT], **given)
    assert (left.detections, left.unjudged) == (2, 1)
    assert replace(left, unjudged=0) == without
    assert "1 of 2 images is annotated for some classes only" in caplog.text
    assert evaluate_files(partly([30, 5], None), [*RIGHT, WRONG_CAT], **given) == wrong


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("type", ["bbox", "segm"])
def test_a_class_without_labeled_images_is_not_evaluated(engine: Any, type: Any) -> None:
    """Nor do the annotations of it that there are count as missed."""
    result = evaluate_files(partly([5], [5]), RIGHT, engine=engine, type=type)
    assert result.per_class == {"cat": ONE, "dog": -1.0}
    assert (result.AP, result.unjudged) == (ONE, 1)
    nothing = evaluate_files(partly([5], [5]), [], engine=engine, type=type)
    assert nothing.per_class == {"cat": 0.0, "dog": -1.0}
    nowhere = evaluate_files(partly([], []), RIGHT, engine=engine, type=type)
    assert set(nowhere.numbers().values()) == {-1.0}
    assert (nowhere.detections, nowhere.unjudged) == (0, 2)


@pytest.mark.parametrize("engine", ENGINES)
def test_only_some_images_of_those_partly_labeled(engine: Any) -> None:
    assert evaluate_files(partly([5], None), RIGHT, engine=engine, image_ids=[40]).per_class == {"cat": -1, "dog": -1}
    assert evaluate_files(partly([5], None), RIGHT, engine=engine, image_ids=[9]).per_class == {"cat": ONE, "dog": -1}


@pytest.mark.parametrize("engine", ENGINES)
def test_evaluator_of_partly_labeled_images(engine: Any, tmp_path: Path) -> None:
    evaluator = CocoEvaluator(load_ground_truth(partly([30], None), "bbox"), category_ids=[5, 30], engine=engine)
    evaluator.update([on(40)], [detections([[60, 10, 80, 30], [10, 10, 50, 50]], [0.95, 0.9], [0, 1])])
    alone = evaluator.compute()
    assert (alone.per_class, alone.detections, alone.unjudged) == ({"cat": -1.0, "dog": ONE}, 1, 1)
    evaluator.update([on(9)], [detections([[20, 20, 50, 50]], [0.8], [0])])
    both = evaluator.compute()
    assert both.per_class == {"cat": ONE, "dog": ONE}
    assert len(evaluator.results) == 3, "the file holds all that was found"
    assert evaluate_files(partly([30], None), evaluator.results, engine=engine) == both
    assert both.to_dict()["unjudged"] == 1
    title = str(both.table().title)
    assert title == "COCO bbox, 2 images, 2 detections; 1 of a class not annotated on its image left out"
