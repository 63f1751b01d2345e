"""Variants of a study, and suggestions for unknown names."""

from __future__ import annotations

import pytest

from tldet.config import parse_options, read_config
from tldet.errors import ConfigError
from tldet.workflows.study.variants import (
    REFERENCE,
    VARIANTS,
    backbone_variants,
    refuse_conflict,
    refuse_redundant,
    transfer_variants,
)


def test_every_variant_differs_from_every_other() -> None:
    assert REFERENCE in VARIANTS
    assert len({repr(variant) for variant in VARIANTS.values()}) == len(VARIANTS)
    assert list(transfer_variants(["frozen", "scratch"])) == ["frozen", "scratch"]


def test_wrong_names() -> None:
    with pytest.raises(ConfigError, match=r"--variants frozn: no such variant; did you mean 'frozen'\?"):
        transfer_variants(["scratch", "frozn"])
    with pytest.raises(ConfigError, match="--variants: scratch is given twice"):
        transfer_variants(["scratch", "scratch"])
    with pytest.raises(ConfigError, match=r"backbone 'resnet_18': neither .* nearest: resnet18"):
        backbone_variants(["resnet18", "resnet_18"], "retinanet_lite0")
    assert backbone_variants(["resnet18"], "retinanet_lite0")["resnet18"].call == {"backbone": "resnet18"}


def test_an_option_for_all_does_not_undo_a_variant() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.layer_decay: variant 'layer-decay' sets this key"):
        refuse_conflict(VARIANTS, {"optimizer.layer_decay": 1.0})
    refuse_conflict(transfer_variants(["scratch", "finetuned"]), {"optimizer.layer_decay": 1.0})


@pytest.mark.parametrize(
    "option",
    [
        "training.seed=5",
        "training={'seed': 5}",
        "data.train.annotations='a.json'",
        "data.val={}",
        "data.train.subset.fraction=0.5",
        "data.val.on_bad_image='skip'",
        "data={}",
        "schedule.steps=5",
        "schedule={'steps': 5}",
    ],
)
def test_keys_that_differ_between_runs_are_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="sets this key for each run"):
        refuse_conflict(transfer_variants(["finetuned"]), parse_options([option]))


@pytest.mark.parametrize(
    ("variant", "option"),
    [
        ("scratch", "model.backbone.weights='a.pt'"),
        ("scratch", "model.backbone={'type': 'TimmBackbone'}"),
        ("scratch", "model.weights='a.pt'"),
        ("scratch", "l2_sp.alpha=0.1"),
        ("frozen", "freeze.gradual=0.5"),
        ("frozen", "freeze={}"),
        ("layer-decay", "optimizer={'type': 'SGD', 'lr': 0.1}"),
        ("layer-decay", "optimizer.backbone_lr=0.1"),
    ],
)
def test_keys_that_a_variant_sets_are_refused(variant: str, option: str) -> None:
    with pytest.raises(ConfigError, match=f"variant '{variant}' sets this key"):
        refuse_conflict(transfer_variants([variant, "finetuned"]), parse_options([option]))


def test_backbones_control_the_whole_backbone() -> None:
    for option in ("model.backbone.frozen_stages=1", "model={}", "model.weights='coco'"):
        with pytest.raises(ConfigError, match="variant 'resnet18' sets this key"):
            refuse_conflict(backbone_variants(["resnet18"], "fcos_lite0"), parse_options([option]))


def test_options_beside_the_variants_are_taken() -> None:
    free = {"optimizer.lr": 0.1, "data.loader.batch_size": 2, "training.log_every": 5, "model.head.x": 1}
    refuse_conflict(VARIANTS, free)
    with pytest.raises(ConfigError, match=r"^--cfg-options optimizer\.layer_decay: variant"):
        refuse_conflict(VARIANTS, {**free, "optimizer.layer_decay": 0.5})


def test_a_recipe_that_decays_itself_is_refused() -> None:
    recipe = read_config("fcos_lite0")
    refuse_redundant(VARIANTS, recipe)
    for value in (0.7, 0.9):
        recipe["optimizer"]["layer_decay"] = value
        with pytest.raises(
            ConfigError, match=r"--variants layer-decay: the recipe already sets optimizer\.layer_decay"
        ):
            refuse_redundant(VARIANTS, recipe)
