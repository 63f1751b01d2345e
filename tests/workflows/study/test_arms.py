"""What is compared, and the nearest name of what is not."""

from __future__ import annotations

import pytest

from tldet.errors import ConfigError
from tldet.workflows.study.arms import ARMS, REFERENCE, backbone_arms, refuse_clash, transfer_arms


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
    with pytest.raises(ConfigError, match=r"optimizer.layer_decay: is what arm 'layer-decay' is about"):
        refuse_clash(ARMS, ["optimizer.layer_decay=1.0"])
    refuse_clash(transfer_arms(["scratch", "finetuned"]), ["optimizer.layer_decay=1.0"])
