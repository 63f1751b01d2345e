"""Settings of a run that follow from its options: batch size, device, learning rate."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tldet.config import option_value, parse_options
from tldet.engine.distributed import World
from tldet.errors import ConfigError
from tldet.transfer.param_groups import build_optimizer
from tldet.workflows.training import assemble, choose
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.run_config import derive_config
from tldet.workflows.training.run_options import Length


def started(monkeypatch: pytest.MonkeyPatch, data: Path, out: Path, *options: str) -> dict[str, Any]:
    """The config that a fine-tuning is started with."""
    with monkeypatch.context() as patched:
        patched.setattr("tldet.workflows.training.finetune.run_training", lambda used, *_, **__: used)
        return finetune(data, out=out, model="retinanet_lite0", cfg_options=options, report=False).data  # type: ignore[attr-defined]


def test_the_given_batch_size_counts_steps(
    digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for option in ("data.loader.batch_size=8", "data.loader={'batch_size': 8}"):
        config = started(monkeypatch, digits, tmp_path / "out", option)
        assert config["data"]["loader"]["batch_size"] == 8
        assert config["training"]["validate_every"] == 60, "600 steps of 2 a pass, five validations"
        assert "batch size 8 (user-specified)" in caplog.messages
        assert "training length 600 steps (about 300 epochs of 16 images)" in caplog.messages
    assert not (tmp_path / "out").exists(), "nothing is written before training begins"


def test_values_of_options() -> None:
    options = parse_options(["a.b=1", "c=dict(d=dict(e=2))", "f.g='auto'"])
    found = [option_value(options, key) for key in ("a.b", "c.d.e", "c.d", "f.g", "a", "a.b.c", "x")]
    assert found == [1, 2, {"e": 2}, "auto", None, None, None]
    assert option_value(parse_options(["a=dict(b=1)", "a.b=2"]), "a.b") == 2
    assert choose.given_batch({"data.loader.batch_size": "auto"}) is None


@pytest.mark.parametrize(("name", "allowed"), [("auto", True), ("cuda", True), ("cuda:1", False), ("cpu", False)])
def test_several_processes_use_a_device_each(monkeypatch: pytest.MonkeyPatch, name: str, allowed: bool) -> None:
    monkeypatch.setattr(assemble, "pick_device", lambda name="auto": torch.device("cuda" if name == "auto" else name))
    assert assemble._device(name, World()).type == ("cpu" if name == "cpu" else "cuda")
    if allowed:
        assert assemble._device(name, World(1, 2)) == torch.device("cuda")
    else:
        with pytest.raises(ConfigError, match=rf"training.device {name} \(--device\): each of the 2 processes uses"):
            assemble._device(name, World(1, 2))


def test_a_further_run_does_not_inherit_the_device() -> None:
    config: dict[str, Any] = {"schedule": {"steps": 5}, "training": {"device": "cuda:1", "ema": 0.9, "seed": 1}}
    derive_config(config, {"loader": {"batch_size": 2}}, Length("steps", 10), 3, 20)
    assert config["training"].keys() >= {"ema", "validate_every"}
    assert config["training"]["seed"] == 3
    assert "device" not in config["training"]


def test_a_given_learning_rate_is_not_scaled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    section = {"type": "AdamW", "lr": 0.0015, "base_batch": 4}
    assert build_optimizer(nn.Linear(1, 1), section, 8).param_groups[0]["lr"] == pytest.approx(0.003)
    assert caplog.messages[-1].startswith(
        "learning rate 0.003: 0.0015 for batch size 4, scaled linearly to batch size 8"
    )
    assert build_optimizer(nn.Linear(1, 1), {**section, "base_batch": None}, 8).param_groups[0]["lr"] == 0.0015
    assert caplog.messages[-1] == "learning rate 0.0015, batch size 8"
