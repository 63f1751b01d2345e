"""Masks: fine-tuned, evaluated, drawn; and the messages if they are missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from rich.console import Console

from tldet import checkpoint, load
from tldet.cli.main import build_parser, main
from tldet.config import read_config
from tldet.data.dataset import CocoDataset
from tldet.engine.logging import read_log
from tldet.errors import ConfigError, DataError
from tldet.evaluation.coco import CocoEvaluator, evaluate_files
from tldet.evaluation.loading import load_ground_truth
from tldet.structures.detections import Detections
from tldet.structures.masks import InstanceMasks
from tldet.workflows.evaluate import evaluate
from tldet.workflows.test import test as evaluate_checkpoint
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.train import train

NUMBERS = ["AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"]
SMALL = ["data.loader.batch_size=2", "model.head.rpn.nms_post=[100, 50]"]


@pytest.fixture(scope="module")
def masked(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("masked") / "out"
    finetune(digits, out=out, model="mask_rcnn_lite0", steps=3, cfg_options=SMALL, report=False)
    return out


def test_a_mask_recipe_is_configured_and_evaluated(masked: Path) -> None:
    config = read_config(masked / "config.py")
    assert config.get("evaluation.type") == "segm"
    assert [config.get(f"data.{part}.masks") for part in ("train", "val", "test")] == [True] * 3
    val = [r for r in read_log(masked / "log.jsonl") if r["type"] == "val"][-1]
    assert {*NUMBERS, *(f"bbox_{name}" for name in NUMBERS), "val_loss_mask"} <= set(val)


def test_test_gives_masks_and_boxes(masked: Path, digits: Path, tmp_path: Path) -> None:
    console = Console(record=True, width=100)
    files = {"json": tmp_path / "t.json", "results": tmp_path / "dt.json"}
    result = evaluate_checkpoint(masked / "best.pt", **files, console=console)
    message = console.export_text()
    assert "COCO segm" in message
    assert "COCO bbox" in message
    reported = json.loads((tmp_path / "t.json").read_text())
    assert list(reported) == [*NUMBERS, "per_class", "bbox"]
    assert list(reported["bbox"]) == [*NUMBERS, "per_class"]
    assert result.bbox is not None
    assert reported["bbox"] == result.bbox.to_dict()
    truth = digits / "test" / "_annotations.coco.json"
    evaluate(truth, tmp_path / "dt.json", type="segm", json=tmp_path / "e.json")
    scored = json.loads((tmp_path / "e.json").read_text())
    assert scored == {key: value for key, value in reported.items() if key != "bbox"}


def test_help_states_the_key_of_box_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build_parser().parse_args(["test", "--help"])
    assert "'bbox'" in capsys.readouterr().out


def test_prediction_draws_and_encodes_masks(masked: Path, digits: Path, tmp_path: Path) -> None:
    image = next((digits / "test").glob("*.jpg"), None) or next((digits / "test").glob("*.png"))
    (tmp_path / "out").mkdir()
    arguments = [str(masked / "best.pt"), str(image), "--score", "0", "--out", str(tmp_path / "out")]
    assert main(["predict", *arguments, "--json", str(tmp_path / "p.json")]) == 0
    records = json.loads((tmp_path / "p.json").read_text())
    assert records
    assert all(r["segmentation"]["size"] == [96, 128] for r in records)
    assert len(list((tmp_path / "out").iterdir())) == 1
    found = load(masked / "best.pt").predict(image, score=0.0)
    assert isinstance(found.masks, InstanceMasks)
    assert found.masks.size == (96, 128)


def without_segmentations(source: Path, to: Path, every: int) -> Path:
    """A copy of a data set in which the first ``every`` objects have none."""
    to.mkdir(parents=True)
    truth = json.loads((source / "_annotations.coco.json").read_text())
    for number, annotation in enumerate(truth["annotations"]):
        if number < every:
            annotation["segmentation"] = []
    path = to / "train.json"
    path.write_text(json.dumps(truth))
    return path


def test_data_without_any_segmentation(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bare = without_segmentations(digits / "train", tmp_path / "d", 10**6)
    given = ["--train", str(bare), "--val", str(bare), "--images", str(digits / "train"), "--out", str(tmp_path / "o")]
    assert main(["finetune", *given, "--model", "mask_rcnn_lite0", "--steps", "1"]) == 2
    message = capsys.readouterr().err
    assert str(bare) in message
    assert "has a segmentation" in message
    assert "Traceback" not in message


def test_data_with_some_segmentations(digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train, val = (without_segmentations(digits / part, tmp_path / part, 3) for part in ("train", "valid"))
    images = [f"data.{part}.images={str(digits / name)!r}" for part, name in (("train", "train"), ("val", "valid"))]
    given: dict[str, Any] = {"train": train, "val": val, "images": digits / "train", "out": tmp_path / "o"}
    with caplog.at_level("INFO", "tldet"):
        finetune(**given, model="mask_rcnn_lite0", steps=1, cfg_options=[*SMALL, *images], report=False)
    lines = [record.getMessage() for record in caplog.records]
    first = next(number for number, line in enumerate(lines) if "learning rate" in line)  # the optimizer is built
    for path, effect in ((train, "not used for the mask loss"), (val, "ignored regions")):
        found = [n for n, line in enumerate(lines) if line.startswith(str(path)) and "without a segmentation" in line]
        assert len(found) == 1
        assert effect in lines[found[0]]
        assert found[0] < first, "before step 1"


@pytest.mark.parametrize(
    ("options", "states"),
    [
        (["data.train.masks=False"], r"data\.train\.masks: must be True for MaskRCNNHead"),
        (["data.val.masks=False"], r"data\.val\.masks: must be True"),
    ],
)
def test_a_mask_head_without_masks(masked: Path, tmp_path: Path, options: list[str], states: str) -> None:
    with pytest.raises(ConfigError, match=states):
        train(masked / "config.py", work_dir=tmp_path, cfg_options=options, report=False)


def test_evaluating_masks_of_a_box_detector(run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.type: is 'segm' .* RetinaNetHead predicts no masks"):
        train(run / "config.py", work_dir=tmp_path, cfg_options=["evaluation.type=segm"], report=False)


def test_testing_masks_on_data_without(masked: Path, digits: Path, tmp_path: Path) -> None:
    bare = without_segmentations(digits / "test", tmp_path / "d", 10**6)
    with pytest.raises(DataError, match="has no segmentation"):
        evaluate_checkpoint(masked / "best.pt", data=bare, images=digits / "test")


@pytest.mark.parametrize(
    "segmentation",
    [[[0, 0, 1e9, 0, 1e9, 1e9]], [[0, 0, 5e7, 0, 5e7, 5e7]], {"size": [2**31, 2**31], "counts": [2**62]}],
    ids=["1e9", "5e7", "RLE"],
)
def test_every_command_refuses_masks_far_larger_than_their_image(
    masked: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], segmentation: Any
) -> None:
    """pycocotools would use gigabytes or end the process."""
    path = shutil.copytree(digits / "test", tmp_path / "data") / "_annotations.coco.json"
    truth = json.loads(path.read_text())
    truth["annotations"][3]["segmentation"] = segmentation
    path.write_text(json.dumps(truth))
    (tmp_path / "dt.json").write_text("[]")
    for command in (
        f"finetune --train {path} --val {path} --out {tmp_path / 'o'} --model mask_rcnn_lite0 --steps 1",
        f"test {masked / 'best.pt'} --data {path}",
        f"evaluate --gt {path} --dt {tmp_path / 'dt.json'} --type segm",
        f"merge {path} {digits / 'train' / '_annotations.coco.json'} --out {tmp_path / 'm'}",
    ):
        assert main(command.split()) == 2, command
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"annotation id {truth['annotations'][3]['id']} has " in line, command
        assert "a polygon far larger than its image" in line or "a mask of size [2147483648, 2147483648]" in line, line


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.mask.decode
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_polygons_and_crowd_rle_are_pycocotools_masks_and_score_the_same(
    shared: Path, tmp_path: Path, every: int
) -> None:
    """Every mask as the data set loads it is the reference's; given as detections they score like its own RLEs.

    All images with crowd regions, and one of ``every`` few others.
    """
    folder = shared / "data" / "coco_mini"
    coco = json.loads((folder / "annotations" / "instances_val2017.json").read_text())
    crowded = {one["image_id"] for one in coco["annotations"] if one["iscrowd"]}
    coco["images"] = [one for n, one in enumerate(coco["images"]) if n % every == 0 or one["id"] in crowded]
    kept = {one["id"] for one in coco["images"]}
    coco["annotations"] = [one for one in coco["annotations"] if one["image_id"] in kept]
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(coco))
    dataset = CocoDataset(str(path), str(folder / "val2017"), masks=True)
    truth = COCO(str(path))
    ids = list(dataset.category_ids)
    evaluator = CocoEvaluator(load_ground_truth(path, "segm"), category_ids=ids, engine="pycocotools")
    records, crowds, polygons = [], 0, 0
    for position in range(len(dataset)):
        target = dataset[position].target
        rows = dataset.index.rows(int(dataset.positions[position]))
        assert target.masks is not None
        theirs = [truth.anns[int(i)] for i in dataset.index.annotation_ids[rows]]
        expected = [truth.annToMask(annotation) for annotation in theirs]
        np.testing.assert_array_equal(
            target.masks.numpy(), np.stack(expected or [target.masks.numpy()[0:0].sum(0)])[: len(theirs)]
        )
        crowds, polygons = crowds + int(target.ignore.sum()), polygons + int((~target.ignore).sum())
        scores = (target.boxes[:, 2] - target.boxes[:, 0]) / 1000
        evaluator.update([target], [Detections(target.boxes, scores, target.labels, target.masks)])
        for annotation, score in zip(theirs, scores.tolist(), strict=True):
            rle = truth.annToRLE(annotation)
            counts = rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"]
            ids = {key: annotation[key] for key in ("image_id", "category_id")}
            records.append({**ids, "segmentation": {**rle, "counts": counts}, "score": score})
    assert crowds == 16
    assert polygons > 1000 / every
    mine = evaluator.compute().numbers()
    assert mine == evaluate_files(path, records, type="segm", engine="pycocotools").numbers()
    assert mine["AP"] > 0.9


def test_checkpoint_keeps_the_masks_settings(masked: Path) -> None:
    head = checkpoint.load_checkpoint(masked / "best.pt")["config"]["model"]["head"]
    assert head["type"] == "MaskRCNNHead"
    assert head["mask"]["paste"] == "sampled"
