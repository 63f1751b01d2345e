"""Other protocols: their numbers are those of pycocotools, of the development kit of VOC and of lvis-api."""

import contextlib
import copy
import io
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from tests.evaluation.protocols.made import Coco, federated
from tldet.cli.main import main
from tldet.errors import ConfigError, DataError
from tldet.evaluation.loading import load_ground_truth, load_results
from tldet.evaluation.protocols.custom import iou_text
from tldet.evaluation.protocols.voc import evaluate_voc
from tldet.evaluation.report import METRICS
from tldet.workflows.evaluate import evaluate

# lvis-api 0.5.3 on the dataset of made.py
LVIS = {
    "LVIS AP": 0.30772276565419426,
    "LVIS AP50": 0.4715369828908357,
    "LVIS AP75": 0.33945424784413925,
    "LVIS APs": 0.43205400897232576,
    "LVIS APm": 0.2902008511805997,
    "LVIS APl": 0.7457645764576457,
    "LVIS APr": 0.19038926833977726,
    "LVIS APc": 0.26436418934633515,
    "LVIS APf": 0.5487608760876088,
    "LVIS AR@300": 0.5528125,
    "LVIS ARs@300": 0.5916666666666667,
    "LVIS ARm@300": 0.5047619047619047,
    "LVIS ARl@300": 0.8166666666666667,
}


@pytest.fixture(scope="module")
def made() -> tuple[Coco, list[Coco]]:
    return federated()


def pycocotools_arrays(gt: Coco, dt: list[Coco], **params: Any) -> tuple[Any, Any]:
    """Return precision and recall of pycocotools with changed parameters."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = copy.deepcopy(gt)
        truth.createIndex()
        found = COCOeval(truth, truth.loadRes(copy.deepcopy(dt)), "bbox")
        for name, value in params.items():
            setattr(found.params, name, value)
        found.evaluate()
        found.accumulate()
    return found.eval["precision"], found.eval["recall"]


def mean(values: Any) -> float:
    return float(values[values > -1].mean()) if (values > -1).any() else -1.0


@pytest.mark.parametrize("engine", ["fast", "pycocotools"])
def test_one_iou_and_more_detections(made: tuple[Coco, list[Coco]], engine: Any) -> None:
    precision, recall = pycocotools_arrays(*made, iouThrs=np.array([0.3]), maxDets=[1000])
    found = evaluate(*made, engine=engine, iou=[0.3], max_dets=[1000])
    custom = found.protocols["custom"].metrics
    assert custom == {
        "AP@[IoU=0.30|maxDets=1000]": mean(precision[..., 0, 0]),
        **{f"AP{s}@[IoU=0.30|maxDets=1000]": mean(precision[..., n, 0]) for n, s in enumerate("sml", 1)},
        "AR@[IoU=0.30|maxDets=1000]": mean(recall[..., 0, 0]),
        **{f"AR{s}@[IoU=0.30|maxDets=1000]": mean(recall[..., n, 0]) for n, s in enumerate("sml", 1)},
    }
    assert found.numbers() == evaluate(*made).numbers()  # those of COCO stay
    assert not set(custom) & set(METRICS)


def test_several_ious_three_limits_and_some_classes(made: tuple[Coco, list[Coco]]) -> None:
    gt, dt = made
    ids = [one["id"] for one in gt["categories"] if one["name"] in ("c1", "c5")]
    ious = [0.4, 0.55, 0.75]
    precision, recall = pycocotools_arrays(gt, dt, iouThrs=np.array(ious), maxDets=[2, 20, 200], catIds=ids)
    found = evaluate(gt, dt, iou=[0.75, 0.4, 0.55], max_dets=[200, 2, 20], classes=["c5", "c1"]).protocols["custom"]
    values = {
        "AP@[IoU=0.40,0.55,0.75|maxDets=200|classes=2]": mean(precision[..., 0, 2]),
        "AP@[IoU=0.55|maxDets=200|classes=2]": mean(precision[1, ..., 0, 2]),
        "APm@[IoU=0.40,0.55,0.75|maxDets=200|classes=2]": mean(precision[..., 2, 2]),
        "AR@[IoU=0.40,0.55,0.75|maxDets=2|classes=2]": mean(recall[..., 0, 0]),
        "AR@[IoU=0.40,0.55,0.75|maxDets=20|classes=2]": mean(recall[..., 0, 1]),
        "ARs@[IoU=0.40,0.55,0.75|maxDets=200|classes=2]": mean(recall[..., 1, 2]),
    }
    assert values.items() <= found.metrics.items()
    assert found.per_class == {name: mean(precision[:, :, k, 0, 2]) for k, name in enumerate(("c1", "c5"))}
    assert found.settings == {"iou_thresholds": ious, "max_dets": [2, 20, 200], "classes": ["c1", "c5"]}


def test_thresholds_as_text() -> None:
    assert iou_text([0.5]) == "0.50"
    assert iou_text(np.linspace(0.5, 0.95, 10).tolist()) == "0.50:0.95:0.05"
    assert iou_text([0.5, 0.6, 0.8, 0.9]) == "0.50,0.60,0.80,0.90"
    assert iou_text([0.125, 0.5]) == "0.125,0.50"


def voc_by_hand(gt: Coco, dt: list[Coco], difficult: Any) -> dict[str, float]:
    """Compute the AP of each class step by step, as the development kit does."""
    found = {}
    for category in gt["categories"]:
        own = [one for one in gt["annotations"] if one["category_id"] == category["id"]]
        taken = [False] * len(own)
        true, false, precision, recall = 0, 0, [0.0], [0.0]
        positives = sum(not difficult(one) for one in own)
        scores = [one for one in dt if one["category_id"] == category["id"]]
        for one in sorted(scores, key=lambda d: -d["score"]):
            best, row = -1.0, -1
            for number, other in enumerate(own):
                if other["image_id"] != one["image_id"]:
                    continue
                (x, y, w, h), (u, v, k, m) = one["bbox"], other["bbox"]
                width, height = min(x + w, u + k) - max(x, u), min(y + h, v + m) - max(y, v)
                shared = max(width, 0) * max(height, 0)
                iou = shared / (w * h + k * m - shared)
                if iou > best:
                    best, row = iou, number
            if best < 0.5:
                false += 1
            elif difficult(own[row]):
                continue
            elif taken[row]:
                false += 1
            else:
                taken[row], true = True, true + 1
            precision.append(true / (true + false))
            recall.append(true / positives if positives else 0.0)
        precision, recall = [*precision, 0.0], [*recall, 1.0]
        for number in range(len(precision) - 1, 0, -1):
            precision[number - 1] = max(precision[number - 1], precision[number])
        steps = [n for n in range(1, len(recall)) if recall[n] != recall[n - 1]]
        area = sum((recall[n] - recall[n - 1]) * precision[n] for n in steps)
        found[category["name"]] = area if positives else -1.0
    return found


def test_voc_is_the_algorithm_of_the_development_kit(made: tuple[Coco, list[Coco]]) -> None:
    gt, dt = copy.deepcopy(made)
    draw = random.Random(3).random
    for one in gt["annotations"]:
        if draw() < 0.15:
            one["difficult" if draw() < 0.5 else "iscrowd"] = 1
    result = evaluate(gt, dt, voc=True).protocols["voc"]
    expected = voc_by_hand(gt, dt, lambda one: one["iscrowd"] or one.get("ignore") or one.get("difficult"))
    assert result.per_class == pytest.approx(expected, abs=1e-12)
    assert len({value for value in expected.values() if 0 < value < 1}) > 3
    assert result.metrics == {"VOC mAP": pytest.approx(np.mean([v for v in expected.values() if v >= 0]), abs=1e-12)}
    assert result.settings["difficult_objects"] == sum(
        bool(one["iscrowd"] or one.get("ignore") or one.get("difficult")) for one in gt["annotations"]
    )


def test_voc_on_real_detections(shared: Path) -> None:
    root = shared / "data" / "eval" / "voc100_detector"
    expected = json.loads((root / "expected.json").read_text())["voc_ap_iou50"]
    for flags, name in ((True, "difficult_ignored"), (False, "difficult_counted")):
        truth = load_ground_truth(root / "gt.json", "bbox", flags=flags)
        found = evaluate_voc(truth, load_results(root / "dets_bbox.json", truth))
        theirs = expected[f"plain_iou/{name}/every_point"]
        assert found.metrics["VOC mAP"] == pytest.approx(theirs["mAP"], abs=1e-12)
        assert found.per_class == pytest.approx(theirs["per_class"], abs=1e-12)


def test_lvis_numbers_are_those_of_lvis_api(made: tuple[Coco, list[Coco]]) -> None:
    result = evaluate(*made, lvis=True).protocols["lvis"]
    assert result.metrics == pytest.approx(LVIS, abs=1e-12)
    assert len(result.per_class) == 9
    masks = copy.deepcopy(made)
    for one in (*masks[0]["annotations"], *masks[1]):
        x, y, w, h = one["bbox"]
        one["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    found = evaluate(*masks, type="segm", lvis=True).protocols["lvis"].metrics
    assert found["LVIS AP"] == pytest.approx(LVIS["LVIS AP"], abs=0.02)  # masks have whole pixels


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda gt: gt["images"][3].pop("neg_category_ids"), "image id 13 has no neg_category_ids"),
        (lambda gt: gt["images"][0]["not_exhaustive_category_ids"].append(1), "image id 10 has unknown category id 1"),
        (lambda gt: gt["categories"][2].pop("frequency"), "category id 8 has frequency None"),
    ],
)
def test_missing_keys_of_lvis_are_named(made: tuple[Coco, list[Coco]], change: Any, message: str) -> None:
    gt, dt = copy.deepcopy(made)
    change(gt)
    with pytest.raises(DataError, match=message):
        evaluate(gt, dt, lvis=True)


def test_wrong_arguments(made: tuple[Coco, list[Coco]]) -> None:
    with pytest.raises(ConfigError, match="one or three"):
        evaluate(*made, max_dets=[1, 10])
    with pytest.raises(ConfigError, match=r"--iou must be above 0 and at most 1, not 1\.5"):
        evaluate(*made, iou=[1.5])
    with pytest.raises(ConfigError, match="--voc evaluates boxes"):
        evaluate(*made, voc=True, type="segm")
    with pytest.raises(DataError, match=r"has no class 'x' \(--classes\), only c0"):
        evaluate(*made, classes=["c0", "x"])


def test_errors_of_each_image_by_hand(tmp_path: Path) -> None:
    gt = {
        "images": [{"id": k, "file_name": f"{k}.jpg", "width": 100, "height": 100} for k in (4, 5, 6)],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [
            {"id": 1, "image_id": 4, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 2, "image_id": 4, "category_id": 2, "bbox": [50, 50, 10, 10], "area": 100, "iscrowd": 0},
            {"id": 3, "image_id": 4, "category_id": 1, "bbox": [60, 0, 40, 40], "area": 1600, "iscrowd": 1},
            {"id": 4, "image_id": 5, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0},
        ],
    }
    rows = [(4, 1, [0, 0, 10, 10], 0.9), (4, 1, [50, 50, 10, 10], 0.8), (4, 1, [70, 10, 9, 9], 0.8)]
    rows += [(5, 1, [0, 0, 10, 9], 0.7), (5, 1, [30, 30, 9, 9], 0.1)]
    dt = [{"image_id": i, "category_id": k, "bbox": box, "score": score} for i, k, box, score in rows]
    for name, content in (("gt.json", gt), ("dt.json", dt)):
        (tmp_path / name).write_text(json.dumps(content))
    inputs = ["--gt", str(tmp_path / "gt.json"), "--dt", str(tmp_path / "dt.json")]
    out = tmp_path / "images.csv"
    assert main(["evaluate", *inputs, "--per-image", str(out)]) == 0
    head, *lines = out.read_text().splitlines()
    assert head == "image_id,file_name,objects,detections,true_positives,false_positives,misses,F1,score_threshold"
    threshold = (0.7 + 0.1) / 2
    assert lines == [
        f"4,4.jpg,2,3,1,1,1,0.5,{threshold}",
        f"5,5.jpg,1,1,1,0,0,1.0,{threshold}",
        f"6,6.jpg,0,0,0,0,0,1.0,{threshold}",
    ]
    assert main(["evaluate", *inputs, "--per-image", str(out), "--classes", "b", "--overwrite"]) == 0
    assert out.read_text().splitlines()[1].startswith("4,4.jpg,1,0,0,0,1,0.0,")
    assert main(["evaluate", *inputs, "--per-image", str(tmp_path / "gt.json")]) == 2


def test_the_command_names_every_number(
    made: tuple[Coco, list[Coco]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in zip(("gt.json", "dt.json"), made, strict=True):
        (tmp_path / name).write_text(json.dumps(content))
    (tmp_path / "names.txt").write_text("c0\nc7\n")
    options = ["--iou", "0.5", "--max-dets", "1000", "--classes", str(tmp_path / "names.txt"), "--voc", "--lvis"]
    inputs = ["--gt", str(tmp_path / "gt.json"), "--dt", str(tmp_path / "dt.json")]
    assert main(["evaluate", *inputs, *options, "--json", str(tmp_path / "out.json")]) == 0
    shown, stored = capsys.readouterr().out, json.loads((tmp_path / "out.json").read_text())
    assert {key: stored[key] for key in METRICS} == evaluate(*made).numbers()
    names = [name for one in stored["protocols"].values() for name in (*one["metrics"], *one["per_class"])]
    assert {"AP@[IoU=0.50|maxDets=1000|classes=2]", "VOC mAP", "VOC AP", "LVIS APr", "LVIS AR@300"} <= set(names)
    assert not set(names) & set(METRICS)
    assert all(name in shown for name in names)
    with pytest.raises(SystemExit):
        main(["evaluate", *inputs, "--iou", "0"])
    assert "must be above 0 and at most 1" in capsys.readouterr().err


def test_classes_without_images(made: tuple[Coco, list[Coco]]) -> None:
    gt = {**made[0], "images": [], "annotations": []}
    custom = evaluate(gt, [], iou=[0.3], max_dets=[5]).protocols["custom"]
    assert set(custom.metrics.values()) == {-1.0}
    assert set(custom.per_class.values()) == {-1.0}
    assert len(custom.per_class) == len(gt["categories"])


def test_close_thresholds_are_different_metrics(made: tuple[Coco, list[Coco]]) -> None:
    metrics = evaluate(*made, iou=[0.3000001, 0.3000002]).protocols["custom"].metrics
    assert {name for name in metrics if name.startswith("AP@")} == {
        f"AP@[IoU={text}|maxDets=100]" for text in ("0.3000001,0.3000002", "0.3000001", "0.3000002")
    }


def test_a_number_of_more_than_64_bits(made: tuple[Coco, list[Coco]]) -> None:
    with pytest.raises(ConfigError, match="max-dets must be an integer of at least 1, not 100000000000000000000"):
        evaluate(*made, max_dets=[10**20])
