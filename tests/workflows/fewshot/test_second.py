"""The config of the second phase, and its trainable layers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tldet.config import read_config
from tldet.errors import ConfigError
from tldet.models.backbones import within
from tldet.models.detector import build_detector
from tldet.models.meta_tensors import without_storage
from tldet.workflows.fewshot.second import all_but, last_layers, second_config, set_variant
from tldet.workflows.study.job import Job


def recipe(name: str) -> dict[str, Any]:
    return read_config(name).data


LEARNING = {
    "faster_rcnn_lite0": {"box.cls_score", "box.bbox_pred"},
    "mask_rcnn_lite0": {"box.cls_score", "box.bbox_pred", "mask.mask_logits"},
    "cascade_rcnn_lite0": {f"box.{i}.{name}" for i in range(3) for name in ("cls_score", "bbox_pred")},
    "retinanet_lite0": {"cls_score", "bbox_pred"},
    "fcos_lite0": {"cls_score", "bbox_pred"},
}


@pytest.mark.parametrize("name", LEARNING)
def test_only_the_last_layers_are_trained(name: str) -> None:
    detector = without_storage(lambda: build_detector(recipe(name)["model"]))
    frozen = all_but(detector, last_layers(detector))
    assert {"backbone", "neck"} <= set(frozen)
    assert len(frozen) == len(set(frozen)) < 20
    learning = {n for n, _ in detector.named_parameters() if not within(n, frozen)}
    assert {n.removeprefix("head.").rpartition(".")[0] for n in learning} == LEARNING[name]


@pytest.mark.parametrize(
    ("variant", "cosine", "frozen"), [("tfa", "fixed", True), ("fc", None, True), ("full", None, False)]
)
def test_the_variants(variant: str, cosine: str | None, frozen: bool) -> None:
    config = recipe("faster_rcnn_lite0")
    set_variant(config, variant)
    assert config["model"]["head"]["roi"].get("cosine") == cosine
    assert config.get("freeze") == ({"layers": ["backbone", "neck", "head.rpn", "head.box.fcs"]} if frozen else None)


def test_a_one_stage_detector_has_no_cosine_classifier() -> None:
    with pytest.raises(ConfigError, match=r"--variants tfa: needs a two-stage detector .*, not RetinaNetHead"):
        set_variant(recipe("retinanet_lite0"), "tfa")
    set_variant(recipe("retinanet_lite0"), "full")


def test_a_cosine_classifier_is_not_fine_tuned_as_a_plain_one() -> None:
    config = recipe("faster_rcnn_lite0")
    config["model"]["head"]["roi"]["cosine"] = "fixed"
    set_variant(copy.deepcopy(config), "tfa")
    for variant in ("fc", "full"):
        with pytest.raises(ConfigError, match=f"--variants {variant}: needs a linear classifier"):
            set_variant(copy.deepcopy(config), variant)
    config["model"]["head"]["roi"]["cosine"] = "none"
    set_variant(config, "fc")


def test_the_config_is_derived_from_the_base_run(tmp_path: Path) -> None:
    config = recipe("faster_rcnn_r50")
    steps = [{"type": "Resize", "short": 480, "long": 800}, {"type": "HorizontalFlip"}]
    section = {
        "type": "CocoDataset",
        "annotations": "x.json",
        "images": "x",
        "transforms": steps,
        "classes": ["a", "b"],
        "partial": False,
        "keep_empty": False,
        "masks": True,
    }
    config["data"] = {"train": section, "val": section, "loader": {"batch_size": 4}}
    config["schedule"] = {"epochs": 12, "policy": "multistep", "milestones": [8, 11], "warmup_steps": 7}
    config["optimizer"] = {"type": "SGD", "lr": 0.02, "momentum": 0.9}
    config["training"] = {"seed": 0, "patience": 3, "clip_norm": 5.0}
    config["model"]["weights"] = {"source": "somewhere"}
    config.update(freeze={"layers": ["backbone"]}, l2_sp={"alpha": 0.1}, class_match={"fold": ["case"]})
    config.update(distill={"teacher": "x.pt", "sha256": "0"}, hooks=[{"type": "StopFile"}])
    before = copy.deepcopy(config)
    base = {"config": config, "meta": {"input": {"short": 480, "long": 800}}}
    shots = tmp_path / "shots.json"
    categories = [{"id": i, "name": name} for i, name in enumerate("abc")]
    image = {"id": 1, "file_name": "a.jpg", "width": 5, "height": 5}
    shots.write_text(json.dumps({"images": [image], "categories": categories, "annotations": []}))
    job = Job(
        factors={"variant": "full", "shots": 10, "seed": 5},
        folder=tmp_path,
        call={"train": str(shots), "images": "/d/train", "lr_factor": 0.1},
        length={"steps": 100},
        val=("/d/test.json", "/d/test"),
        images=20,
        data={},
    )
    made = second_config(base, job)
    assert config == before, "the base run's own is left alone"
    assert made["model"]["head"]["num_classes"] == 3
    assert "weights" not in made["model"]
    assert not {"freeze", "l2_sp", "class_match", "distill", "hooks"} & made.keys()
    assert made["optimizer"] == {"type": "SGD", "lr": pytest.approx(0.002), "momentum": 0.9}
    assert made["schedule"] == {"steps": 100, "policy": "multistep", "milestones": [90], "warmup_steps": 7}
    assert made["training"]["seed"] == 5
    assert made["training"]["patience"] is None
    assert made["training"]["clip_norm"] == 5.0
    assert made["training"]["checkpoint_every"] == 4, "of 20 epochs of 5 steps: five times"
    assert set(made["data"]) == {"train", "test", "loader"}, "no checkpoint is chosen by labels beyond the shots"
    assert made["data"]["train"]["annotations"] == str(shots)
    assert made["data"]["train"]["images"] == "/d/train"
    assert made["data"]["train"]["transforms"] == steps
    assert made["data"]["train"].keys() == {"type", "annotations", "images", "transforms", "masks"}
    assert made["data"]["test"]["annotations"] == "/d/test.json"
    assert made["data"]["test"]["transforms"] == steps[:1]
