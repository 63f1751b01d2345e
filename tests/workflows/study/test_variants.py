"""What is compared, and the nearest name of what is not."""

from __future__ import annotations

import pytest

from tldet.config import load
from tldet.errors import ConfigError
from tldet.workflows.study.variants import ARMS, REFERENCE, backbone_arms, refuse_clash, refuse_same, transfer_arms


def test_every_arm_differs_from_every_other() -> None:
    assert REFERENCE in ARMS
    assert len({repr(arm) for arm in ARMS.values()}) == len(ARMS)
    assert list(transfer_arms(["frozen", "scratch"])) == ["frozen", "scratch"]


def test_wrong_names() -> None:
    with pytest.raises(ConfigError, match=r"--arms frozn: no such arm; did you mean 'frozen'\?"):
        transfer_arms(["scratch", "frozn"])
    with pytest.raises(ConfigError, match="--arms: scratch is given twice"):
        transfer_arms(["scratch", "scratch"])
    with pytest.raises(ConfigError, match=r"backbone 'resnet_18': neither .* nearest: resnet18"):
        backbone_arms(["resnet18", "resnet_18"], "retinanet_lite0")
    assert backbone_arms(["resnet18"], "retinanet_lite0")["resnet18"].call == {"backbone": "resnet18"}


def test_an_option_for_all_does_not_undo_an_arm() -> None:
    with pytest.raises(ConfigError, match=r"optimizer.layer_decay: arm 'layer-decay' sets this key"):
        refuse_clash(ARMS, ["optimizer.layer_decay=1.0"])
    refuse_clash(transfer_arms(["scratch", "finetuned"]), ["optimizer.layer_decay=1.0"])


@pytest.mark.parametrize(
    "option",
    [
        "training.seed=5",
        "training={'seed': 5}",
        "data.train.annotations='a.json'",
        "data.val={}",
        "data={}",
        "schedule.steps=5",
        "schedule={'steps': 5}",
    ],
)
def test_what_every_run_has_of_its_own_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match="sets this key for each run"):
        refuse_clash(transfer_arms(["finetuned"]), [option])


@pytest.mark.parametrize(
    ("arm", "option"),
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
def test_what_an_arm_is_about_is_refused(arm: str, option: str) -> None:
    with pytest.raises(ConfigError, match=f"arm '{arm}' sets this key"):
        refuse_clash(transfer_arms([arm, "finetuned"]), [option])


def test_backbones_control_the_whole_backbone() -> None:
    for option in ("model.backbone.frozen_stages=1", "model={}", "model.weights='coco'"):
        with pytest.raises(ConfigError, match="arm 'resnet18' sets this key"):
            refuse_clash(backbone_arms(["resnet18"], "fcos_lite0"), [option])


def test_options_beside_the_arms_are_taken() -> None:
    refuse_clash(ARMS, ["optimizer.lr=0.1", "data.loader.batch_size=2", "training.log_every=5", "model.head.x=1"])


def test_a_recipe_that_decays_itself_is_refused() -> None:
    recipe = load("fcos_lite0")
    refuse_same(ARMS, recipe)
    for value in (0.7, 0.9):
        recipe["optimizer"]["layer_decay"] = value
        with pytest.raises(ConfigError, match=r"--arms layer-decay: the recipe already sets optimizer\.layer_decay"):
            refuse_same(ARMS, recipe)
