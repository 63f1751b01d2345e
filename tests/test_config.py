"""Configs: literals only, every key checked, origins remembered."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from tldet.config import files, find, parse_options, read_config, validate_config
from tldet.config.files import shipped
from tldet.data.transforms import Pipeline
from tldet.engine.state import TrainSettings
from tldet.errors import ConfigError
from tldet.models.detector import build_detector
from tldet.models.meta_tensors import without_storage
from tldet.transfer.param_groups import build_optimizer
from tldet.workflows.training.schema import PRETRAIN_SCHEMA, SCHEMA, checked_settings

NAME = "faster_rcnn/faster_rcnn_r50_fpn_1x_coco"


@pytest.mark.parametrize("name", [*(n for n in shipped() if not n.startswith("recipes/")), "pretrain/lite0_imagenet"])
def test_every_shipped_config_passes_its_own_check_and_survives_a_dump(name: str, tmp_path: Path) -> None:
    config = read_config(name)
    checked_settings(config, PRETRAIN_SCHEMA if name.startswith("pretrain/") else SCHEMA)
    (tmp_path / "again.py").write_text(config.dump(), encoding="utf-8")
    assert read_config(tmp_path / "again.py").data == config.data


def test_published_values_of_the_1x_schedule() -> None:
    config = read_config(NAME)
    assert config["optimizer"]["lr"] == 0.02
    assert config["schedule"]["milestones"] == [8, 11]
    assert config["schedule"]["epochs"] == 12
    for name in ("retinanet/retinanet", "atss/atss", "gfl/gfl"):
        assert read_config(f"{name}_r50_fpn_1x_coco")["optimizer"]["lr"] == 0.01
    fcos = read_config("fcos/fcos_r50_caffe_fpn_gn_head_center_normbbox_centeronreg_giou_1x_coco")
    assert fcos["optimizer"].items() >= {"lr": 0.01, "bias_lr": 2.0, "bias_decay": 0.0}.items()
    assert fcos["schedule"]["warmup_factor"] == pytest.approx(1 / 3, rel=1e-5)
    assert fcos["model"]["preprocess"] == {"mean": [103.53, 116.28, 123.675], "std": [1.0, 1.0, 1.0], "bgr": True}


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
        ("hooks=StopFile", "hooks: must be a list of dicts, not 'StopFile' (in --cfg-options)"),
        ("hooks=[dict(type='X')]", "hooks.0.type: no hook is called 'X'; known: "),
        ("hooks=[dict(type=X)]", "hooks: must be a list of dicts, not '[dict(type=X)]'"),
        ("data.train.transforms=3", "data.train.transforms: must be Sequence"),
        ("optimizer.type=[1]", "optimizer.type: must be a name, not [1]; known: AdamW, SGD (in --cfg-options)"),
        ("hooks=[dict(type=dict(a=1))]", "hooks.0.type: must be a name, not {'a': 1}; known: "),
        ("model.head.nope.deeper=1", "model.head.nope: unknown key; known: num_classes, roi, rpn (in --cfg-options)"),
        ("datta.train.x=1", "datta: unknown key; did you mean 'data'? (in --cfg-options)"),
        ("training.ema.x=1", "training.ema: must be float or None, not {'x': 1} (in --cfg-options)"),
        ("transforms.0=3", "transforms: unknown key"),
        ("transforms.0=3", "(in --cfg-options)"),
    ],
)
def test_wrong_keys_are_named_with_path_origin_and_nearest_name(option: str, expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        validate_config(read_config(NAME, parse_options([option])), SCHEMA)
    assert expected in str(raised.value)


def test_the_file_that_set_a_key_is_named(tmp_path: Path) -> None:
    base = tmp_path / "base.py"
    base.write_text("model = dict(neck=dict(type='FPN', out_chanels=3))\n", encoding="utf-8")
    mine = tmp_path / "mine.py"
    mine.write_text(f"_base_ = ['{find(NAME)}']\nmodel = dict(neck=dict(out_chanels=3))\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=rf"model\.neck\.out_chanels: unknown key; .*'out_channels'\? \(in {mine}\)"):
        validate_config(read_config(mine), SCHEMA)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os", "1: a config may contain only literals"),
        ("a = 1\nb = open('x')", "2: a config may contain only literals"),
        ("a = [x for x in 'ab']", "not code"),
        ("a = dict(**b)", "not code"),
        ("a = __import__('os').system('true')", "not code"),
        ("a = (", "is not valid Python"),
        ("_base_ = ['nothing.py']", "_base_ 'nothing.py' ("),
        ("_base_ = 5", "_base_ must be a path or a list of paths, not 5"),
        ("_base_ = ['c.py', 5]", "_base_ must be a path or a list of paths"),
        ("_base_ = 'c.py'", "is its own _base_"),
        ("a = {[1]}", "not code"),
    ],
)
def test_code_in_a_config_is_refused_before_it_runs(text: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert expected in str(raised.value)
    assert str(path) in str(raised.value)


def test_unknown_names_list_the_nearest() -> None:
    with pytest.raises(ConfigError, match="faster_rcnn_lite0"):
        find("faster_rcn_lite0")


def test_options() -> None:
    assert parse_options(["a.b=3", "c=[1, 2]", "d=word", "e=None"]) == {"a.b": 3, "c": [1, 2], "d": "word", "e": None}
    with pytest.raises(ConfigError, match=r"must have the form a\.b=value"):
        parse_options(["a.b"])
    assert read_config(NAME, {"data.train.transforms.0.short": 480})["data"]["train"]["transforms"][0]["short"] == 480


def test_options_are_read_as_files_are() -> None:
    given = ["a=dict(b=[dict(c=1)])", "b=open('x')", "c={'d': (1, 2)}", "d= 3", "e=TRUE", "f=-1e999"]
    expected = {"a": {"b": [{"c": 1}]}, "b": "open('x')", "c": {"d": (1, 2)}, "d": 3, "e": True, "f": -float("inf")}
    assert parse_options(given) == expected


@pytest.mark.parametrize("text", ["-" * 3000 + "1", "[" * 90 + "-" * 3000 + "1" + "]" * 90, "f" + ".f" * 3000])
def test_values_nested_too_deeply_are_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "c.py"
    path.write_text(f"a = {text}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        read_config(path)
    assert str(raised.value) == f"{path}: is nested too deeply"
    with pytest.raises(ConfigError) as raised:
        parse_options([f"a={text}"])
    assert str(raised.value) == "--cfg-options a: is nested too deeply"


def test_custom_imports_are_a_key_like_any_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_a_config.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = tmp_path / "mine.py"
    mine.write_text("custom_imports = dict(imports=['imported_by_a_config'])\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="custom_imports: unknown key"):
        validate_config(read_config(mine), SCHEMA)
    assert "imported_by_a_config" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_text_in_double_braces_stays_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """mmengine's reader would put other text in its place, and run what comes of it."""
    monkeypatch.setenv("EVIL", f"' + str(open({str(tmp_path / 'ran')!r}, 'w')) + '")
    texts = ["{{fileBasename}}", "{{$EVIL:x}}", "{{ $EVIL:x }}", "{{_base_.b}}"]
    trick = f"c = \"x\\{{{{_base_.b}}}} + str(open({str(tmp_path / 'ran')!r}, 'w')) #\"\n"
    (tmp_path / "base.py").write_text("b = 1\n", encoding="utf-8")
    mine = tmp_path / "mine.py"
    mine.write_text(f"_base_ = 'base.py'\na = {texts!r}\n{trick}", encoding="utf-8")
    with pytest.warns(DeprecationWarning, match="invalid escape"):
        found = read_config(mine)
    assert found["a"] == texts
    assert found["b"] == 1
    assert found["c"].startswith("x\\{{_base_.b}} + ")
    assert not (tmp_path / "ran").exists()


def test_bases_are_merged_and_the_name_of_a_file_does_not_matter(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a = dict(x=1, y=dict(z=2), l=[1, 2])\n", encoding="utf-8")
    (tmp_path / "b.py").write_text("b = 1\n", encoding="utf-8")
    mine = tmp_path / "mine.cfg"
    mine.write_text("_base_ = ['a.py', 'b.py']\na = dict(y=dict(_delete_=True, w=3), l=[3])\n", encoding="utf-8")
    found = read_config(mine, {"a.x": 4})
    assert found.data == {"a": {"x": 4, "y": {"w": 3}, "l": [3]}, "b": 1}
    assert (found.origin("a.x"), found.origin("a.y.w")) == ("--cfg-options", str(mine))
    (tmp_path / "b.py").write_text("a = 1\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mine\.cfg: a is set by more than one of its _base_ files"):
        read_config(mine)


@pytest.mark.parametrize("option", ["schedule.epochs.x=3", "data.train.transforms.0=5", "data.train.transforms.9.p=1"])
def test_options_that_lead_nowhere_are_one_line(option: str) -> None:
    key = option.partition("=")[0]
    with pytest.raises(ConfigError, match=f"^--cfg-options {key}: cannot be merged: ") as raised:
        read_config(NAME, parse_options([option]))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"type": "HorizontalFlip", "p": 7}, r"^transforms\.1\.p must be at least 0 and at most 1, not 7$"),
        (
            {"type": "Resize", "short": 0},
            r"^transforms\.1: transform Resize: short=0 and long=1333 must be at least 1$",
        ),
        (
            {"type": "Resize", "long": 8193},
            r"^transforms\.1: transform Resize: short=800 and long=8193 must be at most 8192$",
        ),
        (
            {"type": "Resize", "short": [800, 640], "mode": "range"},
            r"^transforms\.1: transform Resize: short=\[800, 640\] must be in ascending order for mode='range'$",
        ),
    ],
)
def test_a_transform_that_rejects_its_values_is_named_with_its_key(step: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        Pipeline([{"type": "Resize", "short": [640, 800], "mode": "range"}, step])


OUT_OF_RANGE = [
    ("model.neck.out_channels=-3", "model.neck.out_channels must be at least 1, not -3"),
    ("model.neck.out_channels=0", "model.neck.out_channels must be at least 1, not 0"),
    ("model.preprocess.std=(0,1,1)", "model.preprocess.std must be above 0 and finite, not (0, 1, 1)"),
    ("model.preprocess.mean=(0,1,1e999)", "model.preprocess.mean must be above -inf and finite, not (0, 1, inf)"),
    ("model.head.prior=0", "model.head.prior must be above 0 and below 1, not 0"),
    ("model.head.stacked_convs=-1", "model.head.stacked_convs must be at least 0, not -1"),
    ("model.head.channels=-4", "model.head.channels must be at least 1, not -4"),
    ("model.head.settings.score_thr=5", "model.head.settings.score_thr must be at least 0 and at most 1, not 5"),
    ("model.head.settings.max_per_img=0", "model.head.settings.max_per_img must be at least 1, not 0"),
]
OF_HEADS = [
    (
        "retinanet_lite0",
        "model.head.settings.ratios=[0]",
        "model.head.settings.ratios must be above 0 and finite, not [0]",
    ),
    ("retinanet_lite0", "model.head.settings.ratios=[]", "model.head.settings.ratios must contain at least one number"),
    ("retinanet_lite0", "model.head.settings.sizes=[[8], [-1], [9], [9]]", "model.head.settings.sizes must be above 0"),
    ("atss_lite0", "model.head.settings.topk=0", "model.head.settings.topk must be at least 1, not 0"),
    ("gfl_lite0", "model.head.reg_max=0", "model.head.reg_max must be at least 1, not 0"),
    ("fcos_lite0", "model.head.settings.borders=[48, 96, -1]", "model.head.settings.borders must be above 0"),
    ("faster_rcnn_lite0", "model.head.rpn.ratios=[0]", "model.head.rpn.ratios must be above 0 and finite, not [0]"),
    (
        "faster_rcnn_lite0",
        "model.head.roi.score_thr=-1",
        "model.head.roi.score_thr must be at least 0 and at most 1, not -1",
    ),
    ("retinanet_lite0", "model.head.stacked_convs=0", None),
    (
        "retinanet_lite0",
        "model.head.channels=64 model.head.stacked_convs=0",
        "model.head.stacked_convs must be at least 1",
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "expected"), [*(("retinanet_lite0", *one) for one in OUT_OF_RANGE), *OF_HEADS]
)
def test_values_out_of_range_are_named_by_their_key(name: str, options: str, expected: str | None) -> None:
    model = read_config(name, parse_options(re.split(r" (?=model\.)", options)))["model"]
    model["backbone"]["weights"] = None
    if expected is None:
        without_storage(lambda: build_detector(model))
        return
    with pytest.raises(ConfigError) as raised:
        without_storage(lambda: build_detector(model))
    assert str(raised.value).startswith(expected)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        ({"type": "SGD", "lr": -1}, "optimizer.lr must be at least 0 and finite, not -1"),
        ({"type": "SGD", "lr": float("inf")}, "optimizer.lr must be at least 0 and finite, not inf"),
        ({"type": "SGD", "lr": float("nan")}, "optimizer.lr must be at least 0 and finite, not nan"),
        ({"type": "SGD", "lr": 1, "momentum": 1.5}, "optimizer.momentum must be at least 0 and below 1, not 1.5"),
        ({"type": "SGD", "lr": 1, "momentum": 0, "nesterov": True}, "optimizer.momentum must be above 0 with nesterov"),
        ({"type": "SGD", "lr": 1, "base_batch": 0}, "optimizer.base_batch must be at least 1, not 0"),
        ({"type": "SGD", "lr": 1, "layer_decay": 0}, "optimizer.layer_decay must be above 0 and finite, not 0"),
        ({"type": "AdamW", "lr": 1, "betas": (2, 0.9)}, "optimizer.betas must be at least 0 and below 1, not (2, 0.9)"),
        ({"type": "AdamW", "lr": 1, "weight_decay": -1}, "optimizer.weight_decay must be at least 0"),
    ],
)
def test_an_optimizer_out_of_range_is_named_by_its_key(section: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as raised:
        build_optimizer(nn.Linear(1, 1), section, 4)
    assert str(raised.value).startswith(expected)


def test_a_seed_that_no_generator_takes() -> None:
    assert TrainSettings(seed=2**63 - 1).seed
    with pytest.raises(ConfigError, match=rf"^training\.seed must be below 2\*\*63, not {10**20}$"):
        TrainSettings(seed=10**20)


def bases(*names: str) -> str:
    return f"_base_ = {list(names)!r}\n"


def test_a_base_of_many_files_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty levels of two files each, both with both of the next level as their bases, have 2**40 paths."""
    for level in range(40):
        for name in "ab":
            below = bases(f"a{level + 1}.py", f"b{level + 1}.py") if level < 39 else ""
            (tmp_path / f"{name}{level}.py").write_text(below)
    read = []
    literals = files.read_literals
    monkeypatch.setattr(files, "read_literals", lambda path: [read.append(path), literals(path)][1])
    (tmp_path / "top.py").write_text(bases("a0.py", "b0.py") + "x = 3")
    assert read_config(tmp_path / "top.py").data == {"x": 3}
    assert len(read) == 81


def test_a_key_of_a_base_that_is_reached_twice_is_set_twice(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("x = dict(y=1)")
    for name in "ab":
        (tmp_path / f"{name}.py").write_text(bases("c.py"))
    (tmp_path / "top.py").write_text(bases("a.py", "b.py"))
    with pytest.raises(ConfigError, match=r"top\.py: x is set by more than one of its _base_ files"):
        read_config(tmp_path / "top.py")
    (tmp_path / "top.py").write_text(bases("a.py"))
    config = read_config(tmp_path / "top.py")
    assert (config.data, config.origin("x.y")) == ({"x": {"y": 1}}, str(tmp_path / "c.py"))


def test_bases_that_go_round_or_too_deep(tmp_path: Path) -> None:
    for level in range(2000):
        (tmp_path / f"a{level}.py").write_text(bases(f"a{level + 1}.py"))
    (tmp_path / "a2000.py").write_text("x = 1")
    with pytest.raises(ConfigError, match=r"a100\.py: is the _base_ of more than 100 files in a row"):
        read_config(tmp_path / "a0.py")
    assert read_config(tmp_path / "a1990.py").data == {"x": 1}
    (tmp_path / "a2000.py").write_text(bases("a1995.py"))
    with pytest.raises(ConfigError, match=r"a1995\.py: is its own _base_"):
        read_config(tmp_path / "a1990.py")


@pytest.mark.parametrize(
    "text", ["x = 0x" + "f" * 5000, "x = [dict(y={-1: (1, -0x1" + "0" * 4000 + ")})]", "x = 1 << 9"]
)
def test_integers_that_cannot_be_printed_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(ConfigError, match=r"c\.py:1: (contains an integer of more than 64|a config may contain only)"):
        read_config(tmp_path / "c.py")
    (tmp_path / "c.py").write_text(f"x = {2**64 - 1}, {-(2**63)}, True, 1j, b'a'")
    assert read_config(tmp_path / "c.py")["x"][:2] == (2**64 - 1, -(2**63))
    value = text.partition("= ")[2]
    assert parse_options([f"a={value}"]) == {"a": value}


def test_long_keys_are_shortened_in_messages(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text(f"{'k' * 100_000} = 1\nmodel = dict({'q' * 100_000}='v{' v' * 100_000}')")
    with pytest.raises(ConfigError, match=r"\[100001 characters\]\.\.\.") as raised:
        validate_config(read_config(tmp_path / "c.py"), SCHEMA)
    assert len(str(raised.value)) < 11_000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_configs_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "loop.py").symlink_to("loop.py")
    (tmp_path / "folder.py").mkdir()
    for name, expected in {
        str(tmp_path / "pipe.py"): "is a pipe, not a regular file",
        str(tmp_path / "folder.py"): "is a folder, not a regular file",
        str(tmp_path / "loop.py"): "no config",
        "/dev/zero": "is a device, not a regular file",
        "x" * 5000: "no config",
        "a\0b": "no config",
    }.items():
        with pytest.raises(ConfigError, match=expected):
            read_config(name)
        (tmp_path / "top.py").write_text(bases(name))
        with pytest.raises(
            ConfigError,
            match=r"top\.py: _base_ .*(no such file|not a regular file|symbolic links|too long|null character)",
        ):
            read_config(tmp_path / "top.py")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("# größe\nx = 1\n".encode("latin-1"), r"c\.py:1: is not UTF-8 \(byte 0xf6; Latin-1 .*\); save it as UTF-8"),
        (b"x = 1\ny = '\xe9'\n", r"c\.py:2: is not UTF-8 \(byte 0xe9;"),
        ("x = 1\n".encode("utf-16"), r"c\.py:1: is not UTF-8 \(byte 0xff;"),
        (b"x = 1\0\n", r"c\.py: is not a text file|c\.py:.*null bytes"),
    ],
)
def test_a_config_in_another_encoding_is_named(content: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "c.py").write_bytes(content)
    with pytest.raises(ConfigError, match=expected):
        read_config(tmp_path / "c.py")


def test_a_config_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "c.py").write_text("x = 'é'\n", encoding="utf-8-sig")
    assert read_config(tmp_path / "c.py").data == {"x": "é"}
