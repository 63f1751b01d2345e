"""The table that training begins with."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from tldet.models.backbones import TorchvisionBackbone
from tldet.transfer.freeze import FreezeSettings, freeze
from tldet.transfer.param_groups import build_optimizer
from tldet.transfer.parameter_table import ParameterRow, parameter_rows, parameter_table


@pytest.fixture(scope="module")
def rows() -> dict[str, ParameterRow]:
    model: Any = nn.Module()
    model.backbone = TorchvisionBackbone("resnet50", frozen_stages=1).freeze()
    model.head = nn.Linear(4, 4)
    releases = freeze(model, FreezeSettings(unfreeze_at={"backbone.layer2": 2}))
    pulled = [name for name, p in model.named_parameters() if p.requires_grad and name.startswith("backbone.layer4")]
    settings = {"type": "SGD", "lr": 0.1, "weight_decay": 0.01, "bias_decay": 0.0, "layer_decay": 0.5}
    optimizer = build_optimizer(model, settings, 4, pulled)
    return {row.name: row for row in parameter_rows(model, optimizer, releases, dict.fromkeys(pulled, 0.3))}


def test_each_group_of_a_resnet50(rows: dict[str, ParameterRow]) -> None:
    counts = {name: (row.parameters, row.trainable) for name, row in rows.items()}
    assert counts == {  # without the frozen norms' scales and shifts
        "stem": (9_536, 0),
        "layer1": (215_808, 0),
        "layer2": (1_219_584, 1_212_416),
        "layer3": (7_098_368, 7_077_888),
        "layer4": (14_964_736, 14_942_208),
        "head": (20, 20),
    }


def test_content_of_a_row(rows: dict[str, ParameterRow]) -> None:
    assert rows["stem"].cells() == ("stem", "9,536", "0", "frozen", "-", "-")
    assert rows["stem"].line() == "stem: 9,536 parameters, frozen"
    assert rows["layer2"].cells()[3:] == ("epoch 2", "0.0125", "0.01")
    assert rows["layer4"].cells()[3:] == ("0", "0.05", "L2-SP 0.3")
    assert (
        rows["head"].line()
        == "head: 20 of 20 parameters trainable from step 0, learning rate 0.1, weight decay 0, 0.01"
    )


def test_the_sum(rows: dict[str, ParameterRow]) -> None:
    table = parameter_table(list(rows.values()))
    assert [column.header for column in table.columns][2:4] == ["trainable", "from step"]
    assert [list(column.cells)[-1] for column in table.columns][:3] == ["all", "23,508,052", "23,232,532"]
