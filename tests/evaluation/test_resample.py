"""AP on weighted images is the evaluator's own AP on images chosen so."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tldet.evaluation.coco import evaluate_files
from tldet.evaluation.columns import Type
from tldet.evaluation.loading import load_ground_truth, load_results
from tldet.evaluation.resample import draws, resampled_ap
from tldet.evaluation.statistics import percentile_interval
from tldet.structures import rle

IMAGES, CLASSES = 12, 3


@pytest.fixture(scope="module")
def scene() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Objects of three classes on twelve images, crowds among them, and detections near and far."""
    random = np.random.default_rng(3)
    truth, found = [], []
    for image in range(IMAGES):
        for _ in range(int(random.integers(0, 6))):
            x, y, w, h = (float(v) for v in random.uniform([0, 0, 20, 20], [200, 200, 80, 80]))
            what = {"image_id": image, "category_id": int(random.integers(CLASSES))}
            crowd = int(random.random() < 0.15)
            truth.append({**what, "id": len(truth) + 1, "bbox": [x, y, w, h], "area": w * h, "iscrowd": crowd})
            for shift in random.uniform(0, 25, int(random.integers(0, 3))):
                box = [x + float(shift), y, w, h]
                found.append({**what, "bbox": box, "score": round(float(random.random()), 1)})
    images = [{"id": number, "width": 300, "height": 300} for number in range(IMAGES)]
    return {
        "images": images,
        "categories": [{"id": k, "name": str(k)} for k in range(CLASSES)],
        "annotations": truth,
    }, found


def ap_of(scene: Any, weights: Any, kind: Type = "bbox") -> list[float]:
    truth = load_ground_truth(scene[0], kind)
    return [float(v) for v in resampled_ap(truth, load_results(scene[1], truth), np.array(weights))]


def test_each_image_once_is_the_evaluation_itself(scene: Any) -> None:
    whole = evaluate_files(*scene).AP
    assert 0.2 < whole < 0.9
    assert ap_of(scene, [[1] * IMAGES]) == pytest.approx([whole], abs=1e-12)


def test_some_images_are_the_evaluation_of_them(scene: Any) -> None:
    chosen = [[0, 3, 4, 7], [1], [2, 5, 8, 9, 10, 11], list(range(1, IMAGES))]
    weights = [[int(i in one) for i in range(IMAGES)] for one in chosen]
    assert ap_of(scene, weights) == pytest.approx(
        [evaluate_files(*scene, image_ids=one).AP for one in chosen], abs=1e-12
    )


def test_an_image_drawn_twice_counts_as_two(scene: Any) -> None:
    """Nearly: two detections of one score are a step of the curve of their own where the images are two."""
    twice = copy.deepcopy(scene)
    twice[0]["images"] += [{"id": 100 + i, "width": 300, "height": 300} for i in (2, 6)]
    extra = [a for a in scene[0]["annotations"] if a["image_id"] in (2, 6)]
    assert extra
    twice[0]["annotations"] += [{**a, "id": 1000 + a["id"], "image_id": 100 + a["image_id"]} for a in extra]
    twice[1].extend({**d, "image_id": 100 + d["image_id"]} for d in scene[1] if d["image_id"] in (2, 6))
    weights = [1 + (i in (2, 6)) for i in range(IMAGES)]
    assert ap_of(scene, [weights]) == pytest.approx([evaluate_files(*twice).AP], abs=0.01)


def test_no_ground_truth_is_undefined_and_no_detection_is_zero(scene: Any) -> None:
    bare = {**scene[0], "annotations": []}
    assert ap_of((bare, scene[1]), [[1] * IMAGES]) == [-1.0]
    assert ap_of((scene[0], []), [[1] * IMAGES]) == [0.0]


def test_draws_are_the_same_each_time_and_as_many_as_there_are_images() -> None:
    first = draws(30, 50)
    assert (first == draws(30, 50)).all()
    assert (first.sum(1) == 30).all()
    assert first.std() == pytest.approx(1, abs=0.1)  # binomial with mean 1


@pytest.mark.parametrize("folder", ["coco_fake100", "voc100_detector"])
def test_real_detections(shared: Path, folder: str) -> None:
    root = shared / "data" / "eval" / folder
    detections = root / json.loads((root / "expected.json").read_text())["results"]["bbox"]["detections"]
    truth = load_ground_truth(root / "gt.json", "bbox")
    results = load_results(detections, truth)
    once = np.ones((1, len(truth.image_ids)), np.int64)
    assert resampled_ap(truth, results, once) == pytest.approx(
        [evaluate_files(root / "gt.json", detections).AP], abs=1e-12
    )


def test_each_image_once_with_partial_labels(scene: Any) -> None:
    """Classes that are not annotated on an image are ignored, as in the evaluation itself."""
    partial = copy.deepcopy(scene)
    for number, image in enumerate(partial[0]["images"]):
        if number % 3:
            image["labeled_category_ids"] = [number % CLASSES]
    whole, ignored = evaluate_files(*partial).AP, evaluate_files(*scene).AP
    assert abs(whole - ignored) > 0.02
    assert ap_of(partial, [[1] * IMAGES]) == pytest.approx([whole], abs=1e-12)
    chosen = [1, 2, 6]
    weights = [[int(i in chosen) for i in range(IMAGES)]]
    assert ap_of(partial, weights) == pytest.approx([evaluate_files(*partial, image_ids=chosen).AP], abs=1e-12)


def test_intervals_cover_the_ap_if_most_images_are_labeled_for_one_class() -> None:
    """40 images, 30 of them labeled for one class only, two detectors: the second misses every third object."""
    random = np.random.default_rng(0)
    truth, found = [], []
    for image in range(40):
        for number in range(6):
            box = [10.0 + 45 * number, *(float(v) for v in random.uniform([10, 20, 20], [200, 40, 60]))]
            what = {"image_id": image, "category_id": number % CLASSES, "bbox": box}
            if image >= 30 or number % CLASSES == 0:  # objects of unlabeled classes are there, but not in the file
                truth.append({**what, "id": len(truth) + 1, "area": box[2] * box[3], "iscrowd": 0})
            moved = [box[0] + float(random.uniform(0, 8)), *box[1:]]
            found.append({**what, "bbox": moved, "score": float(random.random())})
    images: list[dict[str, Any]] = [{"id": number, "width": 300, "height": 300} for number in range(40)]
    for image in images[:30]:
        image["labeled_category_ids"] = [0]
    data = {"images": images, "annotations": truth, "categories": [{"id": k, "name": str(k)} for k in range(CLASSES)]}
    ap, samples = [], []
    for results in (found, found[::3] + found[1::3]):
        ap.append(evaluate_files(data, results).AP)
        loaded = load_ground_truth(data, "bbox")
        samples.append(resampled_ap(loaded, load_results(results, loaded)))
        interval = percentile_interval(samples[-1], ap[-1], 1)
        assert interval.low is not None
        assert interval.high is not None
        assert interval.low < ap[-1] < interval.high
    apart = ap[0] - ap[1]
    paired = percentile_interval(samples[0] - samples[1], apart, 1)
    assert paired.low is not None
    assert paired.high is not None
    assert paired.low < apart < paired.high


def masked(scene: Any) -> Any:
    """The scene with masks: the left part of each box, so that mask AP and box AP differ."""
    truth, found = copy.deepcopy(scene)
    for record in (*truth["annotations"], *found):
        x, y, w, h = record["bbox"]
        part = w * (0.5, 0.75, 1.0)[(record["image_id"] + int(x)) % 3]
        polygon = [[x, y, x + part, y, x + part, y + h, x, y + h]]
        record["segmentation"] = polygon
        if "score" in record or record["iscrowd"]:
            compressed = rle.to_rle(polygon, (300, 300))
            record["segmentation"] = {**compressed, "counts": compressed["counts"].decode()}
        if "score" not in record:
            record["area"] = part * h
    return truth, found


def with_empty_images(scene: Any) -> Any:
    """Five more images without objects, three of them with a false detection of the first class."""
    truth, found = copy.deepcopy(scene)
    truth["images"] += [{"id": 100 + i, "width": 300, "height": 300} for i in range(5)]
    found += [{**copy.deepcopy(found[0]), "image_id": 100 + i, "score": (0.99, 0.98, 0.05)[i]} for i in range(3)]
    return truth, found


def with_partial_labels(scene: Any) -> Any:
    truth, found = copy.deepcopy(scene)
    for number, image in enumerate(truth["images"]):
        if number % 3:
            image["labeled_category_ids"] = [number % CLASSES]
    return truth, found


KINDS: list[Type] = ["bbox", "segm"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("empty", [False, True])
def test_each_image_once_of_boxes_and_masks(scene: Any, kind: Type, partial: bool, empty: bool) -> None:
    """Full and partial labels, crowds, and images without objects, whose false detections count."""
    full = masked(scene)
    assert any(one["iscrowd"] for one in full[0]["annotations"])
    given = with_empty_images(full) if empty else full
    given = with_partial_labels(given) if partial else given
    whole, count = evaluate_files(*given, type=kind).AP, len(given[0]["images"])
    assert 0.05 < whole < 0.95
    assert ap_of(given, [[1] * count], kind) == pytest.approx([whole], abs=1e-12)
    chosen = [0, 3, 4, 7, *range(IMAGES, count)]
    weights = [[int(i in chosen) for i in range(count)]]
    ids = [given[0]["images"][i]["id"] for i in chosen]
    expected = evaluate_files(*given, type=kind, image_ids=ids).AP
    assert ap_of(given, weights, kind) == pytest.approx([expected], abs=1e-12)
    if empty and not partial:
        assert whole < evaluate_files(*full, type=kind).AP - 1e-3, "a false detection on an empty image counts"
    if kind == "segm" and not partial:
        assert abs(whole - evaluate_files(*given).AP) > 1e-3, "masks, not boxes"


@pytest.mark.parametrize("kind", KINDS)
def test_a_draw_of_images_without_objects_is_undefined(scene: Any, kind: Type) -> None:
    given = with_empty_images(masked(scene))
    assert ap_of(given, [[0] * IMAGES + [1] * 5], kind) == [-1.0]
