"""Configs: literals only, every key checked, origins remembered."""

from __future__ import annotations

from pathlib import Path

import pytest

from tldet.config import check, find, load, parse_options
from tldet.config.files import shipped
from tldet.errors import ConfigError
from tldet.workflows.parts import PRETRAIN_SCHEMA, SCHEMA, checked_settings

NAME = "faster_rcnn/faster_rcnn_r50_fpn_1x_coco"


@pytest.mark.parametrize("name", [n for n in shipped() if not n.startswith("recipes/")])
def test_every_shipped_config_passes_its_own_check_and_survives_a_dump(name: str, tmp_path: Path) -> None:
    config = load(name)
    checked_settings(config, PRETRAIN_SCHEMA if name.startswith("pretrain/") else SCHEMA)
    (tmp_path / "again.py").write_text(config.dump(), encoding="utf-8")
    assert load(tmp_path / "again.py").data == config.data


def test_published_values_of_the_1x_schedule() -> None:
    config = load(NAME)
    assert config["optimizer"]["lr"] == 0.02
    assert config["schedule"]["milestones"] == [8, 11]
    assert config["schedule"]["epochs"] == 12
    assert load("retinanet/retinanet_r50_fpn_1x_coco")["optimizer"]["lr"] == 0.01


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("model.backbone.nam=resnet18", "model.backbone.nam: unknown key; did you mean 'name'? (in --cfg-options)"),
        ("model.backbone.type=Resnet", "model.backbone.type: no backbone is called 'Resnet'"),
        ("model.head.roi.pool='a'", "model.head.roi.pool: must be int, not 'a'"),
        ("model.head.roi.poool=7", "model.head.roi.poool: unknown key; did you mean 'pool'?"),
        ("model.neck.extra=maxpol", "model.neck.extra: must be one of 'maxpool'"),
        ("data.train.transforms.0.short=wide", "data.train.transforms.0.short: must be int or Sequence[int]"),
        ("data.train.transforms.1.type=Flip", "data.train.transforms.1.type: no transform is called 'Flip'"),
        ("optimizer.momentum=True", "optimizer.momentum: must be float, not True"),
        ("schedule.epoch=3", "schedule.epoch: unknown key; did you mean 'epochs'?"),
        ("trainig.seed=3", "trainig: unknown key; did you mean 'training'?"),
        ("data.loader=7", "data.loader: must be a dict, not 7"),
        ("schedule=None", "schedule: is missing"),
    ],
)
def test_wrong_keys_are_named_with_path_origin_and_nearest_name(option: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check(load(NAME, parse_options([option])), SCHEMA)
    assert expected in str(raised.value)


def test_the_file_that_set_a_key_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base.py"
    base.write_text("model = dict(neck=dict(type='FPN', out_chanels=3))\n", encoding="utf-8")
    mine = tmp_path / "mine.py"
    mine.write_text(f"_base_ = ['{find(NAME)}']\nmodel = dict(neck=dict(out_chanels=3))\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"model\.neck\.out_chanels: unknown key; .*'out_channels'\? \(in {mine}\)"):
        check(load(mine), SCHEMA)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os", "1: a config holds literals"),
        ("a = 1\nb = open('x')", "2: a config holds literals"),
        ("a = [x for x in 'ab']", "not code"),
        ("a = dict(**b)", "not code"),
        ("a = __import__('os').system('true')", "not code"),
        ("a = (", "is no valid Python"),
        ("_base_ = ['nothing.py']", "_base_ 'nothing.py' does not exist"),
    ],
)
def test_code_in_a_config_is_refused_before_it_runs(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert expected in str(raised.value)
    assert str(path) in str(raised.value)


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(ConfigError, match="faster_rcnn_lite0"):
        find("faster_rcn_lite0")


def test_options() -> None:
    assert parse_options(["a.b=3", "c=[1, 2]", "d=word", "e=None"]) == {"a.b": 3, "c": [1, 2], "d": "word", "e": None}
    with pytest.raises(ConfigError, match=r"must look like a\.b=value"):
        parse_options(["a.b"])
    assert load(NAME, {"data.train.transforms.0.short": 480})["data"]["train"]["transforms"][0]["short"] == 480
