"""On real images: R50 detectors with COCO's ids, and the AP of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tldet import checkpoint
from tldet.engine.logging import read_log
from tldet.workflows.predict.predict import predict
from tldet.workflows.test import test as evaluate
from tldet.workflows.training.train import train

SMALL = [{"type": "Resize", "short": 160, "long": 224}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "score", "more"),
    [
        ("faster_rcnn/faster_rcnn_r50_fpn_1x_coco", "model.head.roi.score_thr", ["model.head.rpn.nms_post=[60, 60]"]),
        ("retinanet/retinanet_r50_fpn_1x_coco", "model.head.settings.score_thr", []),
    ],
)
def test_r50_trains_on_coco_and_gives_its_ids_back(
    shared: Path, tmp_path: Path, config: str, score: str, more: list[str]
) -> None:
    folder = shared / "data" / "coco_mini"
    truth = folder / "annotations" / "instances_val2017.json"
    options = [
        "schedule.epochs=None",
        "schedule.steps=20",
        "schedule.milestones=[1000]",
        "schedule.warmup_steps=5",
        "data.loader.batch_size=2",
        "data.loader.workers=0",
        "model.backbone.weights=None",
        "model.backbone.norm=batch",  # random weights: frozen statistics would normalize nothing
        "model.backbone.frozen_stages=-1",
        f"{score}=0.0",  # after 20 steps nothing is sure
        *more,
        f"data.train.transforms={SMALL}",
        f"data.val.transforms={SMALL}",
        "training.log_every=5",
        *(f"data.{part}.annotations={truth}" for part in ("train", "val")),
        *(f"data.{part}.images={folder / 'val2017'}" for part in ("train", "val")),
    ]
    outcome = train(config, work_dir=tmp_path, cfg_options=options, report=False)
    assert outcome.train.step == 20
    losses = [r["loss"] for r in read_log(tmp_path / "log.jsonl") if r["type"] == "train"]
    assert all(0 < loss < 20 for loss in losses)
    best = tmp_path / "best.pt"
    assert len(checkpoint.load_checkpoint(best)["meta"]["class_names"]) == 80
    evaluate(best, results=tmp_path / "dt.json")
    known = {c["id"] for c in json.loads(truth.read_text())["categories"]}
    images = sorted((folder / "val2017").glob("*.jpg"))[:6]
    summary = predict(best, images, score=0.0)
    used = {r["category_id"] for r in summary.records} | {
        r["category_id"] for r in json.loads((tmp_path / "dt.json").read_text())
    }
    assert used <= known
    assert len(used) > 5
    assert max(used) > 80, "COCO's own ids run to 90"
