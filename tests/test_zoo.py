"""Every shipped config: valid, built, with COCO's classes, and it takes a step. New ones are covered as they come."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tldet.config import Config, read_config
from tldet.config.files import config_root, shipped
from tldet.models.detector import Detector, build_detector
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.transfer.interop.classes import coco_ids
from tldet.transfer.interop.known import KNOWN
from tldet.transfer.param_groups import build_optimizer
from tldet.workflows.training.schema import checked_settings

SMALL = ("lite0", "resnet18")
SIZE = (64, 96)
NOTHING = {"type": "CocoDataset", "annotations": "a.json", "images": "."}


def complete(name: str) -> Config:
    """A config whose data are filled in as ``tldet finetune`` fills in a recipe's."""
    config = read_config(name)
    config.data.setdefault("data", {}).setdefault("train", dict(NOTHING))
    return config


def marked() -> list[Any]:
    """All names; slow are those with a large backbone, and configs with the model of a recipe."""
    recipes = [read_config(name)["model"] for name in shipped() if name.startswith("recipes/")]
    marked = []
    for name in shipped():
        model = read_config(name)["model"]
        large = not any(part in model["backbone"]["name"] for part in SMALL)
        again = not name.startswith("recipes/") and _network(model) in map(_network, recipes)
        marked.append(pytest.param(name, marks=[pytest.mark.slow] * (large or again)))
    return marked


def _network(model: dict[str, Any]) -> dict[str, Any]:
    """A model section without its classes and initial weights."""
    backbone = {key: value for key, value in model["backbone"].items() if key != "weights"}
    return {**model, "backbone": backbone, "head": {**model["head"], "num_classes": None}}


def detector(config: Config) -> Detector:
    config["model"]["backbone"]["weights"] = None
    torch.manual_seed(0)
    built = build_detector(config["model"], tuple(coco_ids()))
    built.backbone.freeze()  # type: ignore[operator]
    return built


def batch() -> Batch:
    images = torch.randint(0, 256, (2, 3, *SIZE), generator=torch.Generator().manual_seed(1)).byte()
    boxes = torch.tensor([[4.0, 4, 60, 50], [50, 10, 90, 60]])
    masks = torch.zeros(2, *SIZE, dtype=torch.uint8)
    masks[0, 4:50, 4:60] = masks[1, 10:60, 50:90] = 1
    nothing = torch.zeros(2, dtype=torch.bool)
    first = Target(boxes, torch.tensor([0, 79]), nothing, image_id=1, masks=masks)
    second = Target(boxes[:0], torch.zeros(0, dtype=torch.int64), nothing[:0], image_id=2, masks=masks[:0])
    return Batch(images, [SIZE] * 2, [first, second], [SIZE] * 2, seed=3)


@pytest.mark.parametrize("name", shipped())
def test_a_config_is_valid_and_states_its_published_ap(name: str) -> None:
    config = complete(name)
    settings = checked_settings(config)
    assert config["model"]["head"]["num_classes"] == 80
    text = (config_root() / f"{name}.py").read_text(encoding="utf-8")
    if name.startswith("recipes/"):
        assert f"--model {name.removeprefix('recipes/')}`" in text
        assert "val" not in config["data"], "a recipe brings no data"
    else:
        assert "published" in text.lower(), "its AP and source, or that there is none"
        assert settings.schedule.epochs in {12, 24, 36}
        assert config["data"]["val"]["annotations"] == "data/coco/annotations/instances_val2017.json"


@pytest.mark.parametrize("name", marked())
def test_a_config_is_built_and_takes_a_step(name: str) -> None:
    config = complete(name)
    model = detector(config).train()
    assert model.head.num_classes == 80
    optimizer = build_optimizer(model, config["optimizer"], 2)
    before = {key: p.detach().clone() for key, p in model.named_parameters()}
    losses = model(batch())
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    optimizer.step()
    moved = [key for key, p in model.named_parameters() if not torch.equal(p, before[key])]
    parts = {key.partition(".")[0] for key in moved}
    assert parts == {"backbone", "neck", "head"}
    assert all(torch.isfinite(p).all() for p in model.parameters())
    found = model.eval()(batch())
    assert [one.boxes.shape[1] for one in found] == [4, 4]


@pytest.mark.parametrize("name", [n for n in shipped() if "_ms_3x" in n])
def test_the_3x_configs_are_mmdet_s(name: str) -> None:
    config = read_config(name)
    assert (config["schedule"]["epochs"], config["schedule"]["milestones"]) == (36, [27, 33])
    resize = config["data"]["train"]["transforms"][0]
    assert (resize["short"], resize["long"], resize["mode"]) == ([640, 800], 1333, "range")
    assert config["data"]["val"]["transforms"] == [{"type": "Resize", "short": 800, "long": 1333}]
    once = read_config(name.replace("_ms_3x", "_1x"))
    assert config["model"] == once["model"]
    assert config["optimizer"] == once["optimizer"]


def test_the_table_of_known_models_names_configs_by_one_rule() -> None:
    """A config that is shipped is found under the very name the table has."""
    there = [known for known in KNOWN if known.config in shipped()]
    assert {known.case for known in there} >= {"faster_rcnn", "retinanet"}
    assert len({known.config for known in KNOWN}) == len(KNOWN)
    assert all(
        read_config(known.config.removeprefix("recipes/")).data == read_config(known.config).data for known in there
    )
