"""``--scratch``: no weights from anywhere, and nothing that needs some."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from tldet import checkpoint
from tldet.config import Config, parse_options, read_config
from tldet.data.index import AnnotationIndex
from tldet.errors import ConfigError, TrainingError
from tldet.models.detector import build_detector
from tldet.workflows.study.plan import make_plan
from tldet.workflows.study.request import TransferStudyRequest
from tldet.workflows.study.variants import refuse_conflict, transfer_variants
from tldet.workflows.training.finetune import finetune, planned_config, with_backbone
from tldet.workflows.training.initial_weights import WeightsSource, check_scratch, from_scratch, initial_weights
from tldet.workflows.training.request import FinetuneRequest, TransferOptions
from tldet.workflows.training.train import train


def recipe(folder: Path, run: Path) -> Path:
    """A config with every kind of pretrained weights, as earlier runs leave them."""
    config: dict[str, Any] = read_config("retinanet_lite0").data
    config["model"]["weights"] = {"source": str(run / "best.pt")}
    config["freeze"] = {"layers": ["backbone"]}
    config["l2_sp"] = {"alpha": 0.1}
    config["class_match"] = {"fold": ["case"]}
    config["distill"] = {"teacher": str(run / "best.pt"), "sha256": "0" * 64}
    config["optimizer"]["layer_decay"] = 0.7
    path = folder / "recipe.py"
    path.write_text(Config(config).dump())
    return path


def test_every_source_of_weights_is_dropped_and_reported(
    digits: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given: dict[str, Any] = {"model": str(recipe(tmp_path, run)), "steps": 0, "scratch": True}
    with caplog.at_level(logging.INFO):
        finetune(digits, out=tmp_path / "scratch", **given, report=False)
    reported = {r.getMessage().split(" ")[2] for r in caplog.records if r.getMessage().startswith("--scratch: dropped")}
    assert reported == {"model.weights", "freeze", "l2_sp", "class_match", "distill"} | {
        "optimizer.layer_decay",
        "optimizer.backbone_lr",
    }
    made, start = (checkpoint.load_checkpoint(path / "best.pt") for path in (tmp_path / "scratch", run))
    assert made["meta"]["weights_source"] == "random"
    assert "distill" not in made["config"]
    assert "backbone_lr" not in made["config"]["optimizer"], "random weights need no lower learning rate"
    weights = [name for name, one in made["model"].items() if name.endswith("weight") and one.ndim > 1]
    assert weights
    assert not [n for n in weights if torch.equal(made["model"][n], (start["ema"] or start["model"])[n])]
    check_scratch(Config(made["config"]))
    out = tmp_path / "scratch"
    train(out / "config.py", work_dir=out, resume=True, cfg_options=["schedule.steps=1"], report=False)
    assert checkpoint.load_checkpoint(tmp_path / "scratch" / "step_00000001.pt")["meta"]["weights_source"] == "random"


@pytest.mark.parametrize(
    "option",
    [
        "model.weights.source='x.pt'",
        "model.backbone.weights='package:efficientnet_lite0'",
        "model.backbone.frozen_stages=1",
        "model.backbone.norm=frozen",
        "freeze.layers=['backbone']",
        "freeze.gradual=0.5",
        "l2_sp.alpha=0.1",
        "class_match.fold=['case']",
        "optimizer.layer_decay=0.7",
    ],
)
def test_options_that_need_weights(digits: Path, tmp_path: Path, option: str) -> None:
    key = option.split("=")[0].rpartition(".")[0]
    with pytest.raises(TrainingError, match=f"--scratch and {key}.* cannot be combined"):
        finetune(
            digits,
            out=tmp_path / "out",
            model="retinanet_lite0",
            steps=0,
            scratch=True,
            cfg_options=[option],
            report=False,
        )
    assert not checkpoint.steps_in(tmp_path / "out")
    with pytest.raises(ConfigError, match="variant 'scratch'"):
        refuse_conflict(transfer_variants(["scratch", "finetuned"]), parse_options([option]))
    refuse_conflict(transfer_variants(["finetuned"]), parse_options([option]))


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (TransferOptions(freeze=("backbone",)), "freeze"),
        (TransferOptions(gradual=0.5), "gradual"),
        (TransferOptions(l2_sp=0.1), "l2-sp"),
        (TransferOptions(layer_decay=0.7), "layer-decay"),
        (TransferOptions(class_aliases="a.json"), "class-aliases"),
        (TransferOptions(fold_names=("case",)), "fold-names"),
    ],
)
def test_transfer_options(digits: Path, tmp_path: Path, options: TransferOptions, name: str) -> None:
    with pytest.raises(TrainingError, match=f"--scratch and --{name} cannot be combined"):
        finetune(
            digits, out=tmp_path / "out", model="retinanet_lite0", steps=0, scratch=True, **vars(options), report=False
        )


def test_empty_sections_do_not_conflict() -> None:
    config: dict[str, Any] = read_config("retinanet_lite0").data
    config["freeze"] = {"layers": []}
    config, dropped = from_scratch(config)
    assert dropped == ["--scratch: dropped optimizer.backbone_lr = 0.3 of the recipe"]
    check_scratch(Config(config))


def test_another_backbone_does_not_keep_a_detector_s_weights(run: Path) -> None:
    config: dict[str, Any] = read_config("retinanet_lite0").data
    config["model"]["weights"] = {"source": str(run / "best.pt")}
    config, lines = with_backbone(config, "resnet18", False)
    assert "weights" not in config["model"]
    assert config["model"]["backbone"]["weights"] is not None
    assert [line for line in lines if line.startswith("--backbone: dropped model.weights")]


def test_the_scratch_variant_of_a_study_has_random_weights(digits: Path, run: Path, tmp_path: Path) -> None:
    """The recipe has the weights of a detector; the variant ``finetuned`` shows that they would be loaded."""
    path = recipe(tmp_path, run)
    config = read_config(path).data
    for key in ("distill", "l2_sp", "class_match", "freeze"):
        config.pop(key)
    path.write_text(Config(config).dump())
    wanted = TransferStudyRequest(digits, out=tmp_path / "s", model=str(path), steps=1, seeds=[0])
    start = checkpoint.load_checkpoint(run / "best.pt")
    trained = start["ema"] or start["model"]
    equal = {}
    for job in make_plan("transfer", wanted, transfer_variants(["scratch", "finetuned"])).jobs:
        used = planned_config(FinetuneRequest(out=job.folder, **job.call, steps=1))[0]
        names = AnnotationIndex.load(used["data"]["train"]["annotations"]).class_names
        model = build_detector(used["model"], names)
        loaded = initial_weights(model, WeightsSource(detector=used.get("model.weights.source")))
        weights = {n: w for n, w in model.state_dict().items() if n.endswith("weight") and w.ndim > 1}
        equal[job.variant] = sum(torch.equal(weight, trained[name]) for name, weight in weights.items()) / len(weights)
        assert (loaded.source == "random") == (job.variant == "scratch")
    assert equal["scratch"] == 0
    assert equal["finetuned"] > 0.9
