"""Layer-wise decay as in ViTDet: the rate of layer group n of L + 1 is decay^(L + 1 - n) times the base rate."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tldet.config import Config, read_config
from tldet.config.files import config_root
from tldet.models.detector import build_detector
from tldet.models.meta_tensors import without_storage
from tldet.transfer.param_groups import build_optimizer
from tldet.workflows.study.named import check_jobs
from tldet.workflows.study.plan import make_plan
from tldet.workflows.study.request import TransferStudyRequest
from tldet.workflows.study.variants import transfer_variants
from tldet.workflows.training.finetune import planned_config
from tldet.workflows.training.request import FinetuneRequest, TrainRequest
from tldet.workflows.training.run_config import final_config
from tldet.workflows.training.train import loaded

DECAY, FACTOR = "optimizer.layer_decay=0.7", "optimizer.backbone_lr=0.4"


def planned(digits: Path, out: Path, **more: Any) -> Config:
    return planned_config(FinetuneRequest(digits, out=out, steps=1, **{"model": "retinanet_lite0", **more}))[0]


def rates(config: Config) -> tuple[list[float], int]:
    """Learning rates of the backbone relative to the head, from the last layer group to the first, and their number."""
    section = dict(config["model"])
    section["backbone"] = {**section["backbone"], "weights": None, "frozen_stages": -1}
    model: Any = without_storage(lambda: build_detector(section))
    groups = build_optimizer(model, {**config["optimizer"], "base_batch": None, "bias_lr": 1.0}, 4).param_groups
    found = {group["lr"] / config["optimizer"]["lr"] for group in groups if group["name"].startswith("backbone.")}
    assert isinstance(model, nn.Module)
    return sorted(found, reverse=True), len(list(model.backbone.layer_groups()))


def assert_set(config: Config, decay: float = 0.7, factor: float = 1.0) -> None:
    assert config["optimizer"]["layer_decay"] == decay
    assert config["optimizer"].get("backbone_lr", 1.0) == factor


def assert_vitdet_s(config: Config, decay: float = 0.7, factor: float = 1.0) -> None:
    assert_set(config, decay, factor)
    found, count = rates(config)
    assert found == pytest.approx([factor * decay**depth for depth in range(1, count + 1)])


@pytest.mark.parametrize("backbone", [None, "resnet18", "convnext_atto", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("how", ["option", "cfg_options"])
def test_finetune_decays_from_the_full_rate(
    digits: Path, tmp_path: Path, backbone: str | None, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    more: dict[str, Any] = {"layer_decay": 0.7} if how == "option" else {"cfg_options": [DECAY]}
    with caplog.at_level(logging.INFO):
        assert_vitdet_s(planned(digits, tmp_path / "o", backbone=backbone, **more))
    assert "optimizer.backbone_lr = 1 instead of 0.3, because of optimizer.layer_decay = 0.7 (ViTDet)" in caplog.text


@pytest.mark.parametrize("more", [{"layer_decay": 0.7, "cfg_options": [FACTOR]}, {"cfg_options": [DECAY, FACTOR]}])
def test_an_explicit_factor_is_kept(
    digits: Path, tmp_path: Path, more: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert_vitdet_s(planned(digits, tmp_path / "o", **more), factor=0.4)
    assert "instead of" not in caplog.text


def test_without_decay_the_factor_of_the_recipe_is_kept(digits: Path, tmp_path: Path) -> None:
    assert planned(digits, tmp_path / "o")["optimizer"]["backbone_lr"] == 0.3
    none = planned(digits, tmp_path / "o", cfg_options=["optimizer.layer_decay=1.0"])
    assert none["optimizer"]["backbone_lr"] == 0.3


def test_a_vision_transformer_decays_by_default(digits: Path, tmp_path: Path) -> None:
    config = planned(digits, tmp_path / "o", backbone="vit_tiny_patch16_224")
    assert_vitdet_s(config)
    assert rates(config)[0][-1] == pytest.approx(0.7**13)
    other = planned(digits, tmp_path / "o", backbone="vit_tiny_patch16_224", layer_decay=0.8)
    assert_set(other, 0.8)
    none = ["optimizer.layer_decay=1.0"]
    without = planned(digits, tmp_path / "o", backbone="vit_tiny_patch16_224", cfg_options=none)
    assert without["optimizer"]["backbone_lr"] == 0.3


def test_train_with_config_options(tmp_path: Path) -> None:
    for given in ("recipes/retinanet_lite0", read_config("retinanet_lite0")):
        assert_set(loaded(TrainRequest(given, cfg_options=[DECAY])))
        assert_set(loaded(TrainRequest(given, cfg_options=[DECAY, FACTOR])), factor=0.4)
        section = "optimizer=dict(type='SGD', lr=0.01, layer_decay=0.7, backbone_lr=0.4)"
        assert_set(loaded(TrainRequest(given, cfg_options=[section])), factor=0.4)
    path = tmp_path / "both.py"
    base = config_root() / "recipes" / "retinanet_lite0.py"
    path.write_text(f"_base_ = {str(base)!r}\noptimizer = dict({DECAY[10:]}, {FACTOR[10:]})\n")
    assert_set(loaded(TrainRequest(path)), factor=0.4)


def test_runs_from_the_config_of_another_run() -> None:
    """``extend`` and ``fewshot`` take the config of a checkpoint."""
    base = read_config("retinanet_lite0").data
    assert_set(final_config(base, [DECAY], "base.pt"))
    assert_set(final_config({**base, "optimizer": {**base["optimizer"], "layer_decay": 0.7}}, [], "x"), factor=0.3)


def test_studies(digits: Path, tmp_path: Path) -> None:
    given = TransferStudyRequest(digits, out=tmp_path / "s", model="retinanet_lite0", steps=3, seeds=[0])
    for names, options in ((["layer-decay"], []), (["finetuned"], [DECAY])):
        plan = make_plan(
            "transfer", TransferStudyRequest(**{**vars(given), "cfg_options": options}), {**transfer_variants(names)}
        )
        check_jobs(plan.jobs)
        (job,) = plan.jobs
        assert_set(planned_config(FinetuneRequest(out=job.folder, **job.call, steps=3))[0])
