"""Initial weights through the command: frozen layers, L2-SP, classes by name."""

from __future__ import annotations

import json
import logging
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools import finetune_words
from tldet import checkpoint
from tldet.cli.main import main
from tldet.engine.logging import read_log
from tldet.workflows.test import test as evaluate
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.request import TransferOptions

SMALL = ["data.loader.batch_size=2", "training.precision=fp32"]


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that ends with exit code 2."""
    assert main(list(arguments)) == 2
    return capsys.readouterr().err.rstrip().splitlines()[-1]


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with gradual unfreezing and L2-SP; a checkpoint of each step."""
    out = tmp_path_factory.mktemp("gradual") / "out"
    wanted = TransferOptions(freeze=("neck",), gradual=0.5, layer_decay=0.8, l2_sp=0.1)
    options = [*SMALL, "training.checkpoint_every=0.125", "training.max_keep_ckpts=20", "training.validate_every=None"]
    finetune(digits, out=out, model="retinanet_lite0", steps=8, **vars(wanted), cfg_options=options, report=False)
    return out


def test_options_are_in_the_config(whole: Path) -> None:
    config = checkpoint.load_checkpoint(whole / "best.pt")["config"]
    assert config["freeze"] == {"layers": ["neck"], "gradual": 0.5}
    assert config["l2_sp"] == {"alpha": 0.1}
    assert config["optimizer"]["layer_decay"] == 0.8


@pytest.mark.parametrize("step", [2, 4])  # groups begin to learn after steps 1, 2, 2, 3 and 4
def test_a_resumed_run_is_the_same(whole: Path, tmp_path: Path, step: int) -> None:
    shutil.copytree(whole, tmp_path / "out")
    for path in (tmp_path / "out").glob("step_*.pt"):
        if int(path.stem.removeprefix("step_")) > step:
            path.unlink()
    finetune(out=tmp_path / "out", resume=True, report=False)
    ours, theirs = (checkpoint.load_checkpoint(folder / "step_00000008.pt") for folder in (tmp_path / "out", whole))
    for part in ("model", "ema"):
        assert all(torch.equal(ours[part][name], theirs[part][name]) for name in theirs[part])
    assert ours["meta"]["weights_source"] == "package:efficientnet_lite0"
    state, other = (one["training"]["optimizer"]["state"] for one in (ours, theirs))
    assert state.keys() == other.keys()
    assert all(torch.equal(state[i][key], other[i][key]) for i in other for key in other[i])


def test_changed_weights_are_the_trainable_ones(whole: Path) -> None:
    states = [checkpoint.load_checkpoint(whole / f"step_{step:08d}.pt") for step in (1, 2, 8)]
    parts: list[set[str]] = []
    for before, after in pairwise(states):
        moved = {n for n, one in after["model"].items() if not torch.equal(one, before["model"][n])}
        parts.append({".".join(name.split(".")[: 4 if name.startswith("backbone") else 1]) for name in moved})
    assert parts[0] == {"backbone.body.blocks.6", "head"}
    assert parts[1] == {*(f"backbone.body.blocks.{i}" for i in range(2, 7)), "head"}, "the neck's statistics rest too"
    start = states[2]["training"]["l2_sp"]
    assert all(torch.equal(start[name], states[0]["model"][name]) for name in start), "nothing of it learned in step 1"


def test_the_table_is_logged_without_a_terminal(
    digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    arguments = finetune_words(digits, tmp_path / "a")
    assert main([*arguments, "--steps", "1", "--freeze", "all-but-head", "--cfg-options", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "trainable parameters" in out
    assert "peak memory " in out
    assert "trainable from" not in caplog.text
    counts = {line.split()[0]: line.split()[2:4] for line in out.splitlines() if line.split()[1:2]}
    assert counts["neck"][1] == "frozen"
    finetune(digits, out=tmp_path / "b", model="retinanet_lite0", steps=1, cfg_options=SMALL, report=False)
    assert (
        "neck: 504,320 of 504,320 parameters trainable from step 0, learning rate 0.00075, weight decay 0, 0.05"
        in caplog.text
    )
    trained, first = (checkpoint.load_checkpoint(tmp_path / name / "step_00000001.pt") for name in "ab")
    assert len(trained["training"]["optimizer"]["state"]) < len(first["training"]["optimizer"]["state"]) / 2


def two_classes(digits: Path, folder: Path, names: dict[str, str]) -> Path:
    """The images' annotations with these digits only, under other names."""
    truth = json.loads((digits / "train" / "_annotations.coco.json").read_text())
    chosen = [{**c, "name": names[c["name"]]} for c in truth["categories"] if c["name"] in names]
    ids = {c["id"] for c in chosen}
    objects = [a for a in truth["annotations"] if a["category_id"] in ids]
    path = folder / "some.json"
    path.write_text(json.dumps({**truth, "categories": chosen, "annotations": objects}))
    return path


def test_classes_of_other_names(run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    truth = two_classes(digits, tmp_path, {"3": "three", "7": "7", "9": "new one"})
    (tmp_path / "aliases.json").write_text('{"three": "3"}')
    data = ["--train", str(truth), "--val", str(truth), "--images", str(digits / "train")]
    arguments = ["finetune", "--no-report", *data, "--out", str(tmp_path / "out"), "--model", "retinanet_lite0"]
    arguments += ["--init-from", str(run / "best.pt"), "--class-aliases", str(tmp_path / "aliases.json")]
    assert main([*arguments, "--steps", "0", "--cfg-options", *SMALL]) == 0
    out = capsys.readouterr().out
    assert "classifier weights copied for 2 of 3 classes" in out
    assert "copied from 3" in out
    start = checkpoint.load_checkpoint(tmp_path / "out" / "step_00000000.pt")
    origin = {"three": "3", "7": "7", "new one": None}
    assert start["meta"]["class_names"] == list(origin)
    assert start["meta"]["classes_from"] == origin
    old = checkpoint.load_checkpoint(run / "best.pt")["ema"]
    rows, theirs = (s["head.cls_score.weight"].unflatten(0, (9, -1)) for s in (start["model"], old))
    assert torch.equal(rows[:, :2], theirs[:, [3, 7]])
    (record,) = read_log(tmp_path / "out" / "log.jsonl")
    assert (record["type"], record["step"]) == ("val", 0)
    best = evaluate(tmp_path / "out" / "best.pt", data=truth, images=digits / "train")
    assert abs(best.AP - record["AP"]) < 1e-4, "the start can be measured like any run"
    finetune(out=tmp_path / "out", resume=True, cfg_options=["schedule.steps=1"])
    assert checkpoint.load_checkpoint(tmp_path / "out" / "step_00000001.pt")["meta"]["classes_from"] == origin
    page = (tmp_path / "out" / "report.html").read_text()
    for name, old in origin.items():
        assert f"<tr><td>{name}</td><td>{old or 'newly initialized'}</td></tr>" in page


def test_no_common_class_is_reported(run: Path, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    truth = two_classes(digits, tmp_path, {"3": "three", "7": "seven"})
    (tmp_path / "none").write_text("# nobody\n")
    wanted = TransferOptions(class_aliases=tmp_path / "none")
    given: dict[str, Any] = {"train": truth, "val": truth, "images": digits / "train", **vars(wanted)}
    given["init_from"] = run / "best.pt"
    finetune(out=tmp_path / "o", model="retinanet_lite0", steps=0, cfg_options=SMALL, **given, report=False)
    assert (
        "no class in common (initial weights: 0, 1, 2, 3, 4, ...; data: three, seven): classifier weights"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--freeze", "backbon"], "freeze.layers: 'backbon' matches no parameters; did you mean backbone"),
        (["--freeze", "backbone", "--scratch"], "--scratch and --freeze cannot be combined"),
        (["--l2-sp", "1", "--scratch"], "--scratch and --l2-sp cannot be combined"),
        (["--gradual", "--minutes", "1"], "specify the length in epochs or steps"),
        (["--fold-names", "case"], "class_match: needs detector weights"),
        (
            ["--l2-sp", "1", "--cfg-options", "model.backbone.weights=None"],
            "l2_sp: the backbone has no trainable pretrained weights",
        ),
        (["--cfg-options", "freeze.layer=['neck']"], "freeze.layer: unknown key; did you mean 'layers'?"),
        (["--cfg-options", "freeze.layers=neck"], "freeze.layers: must be"),
    ],
)
def test_invalid_requests_are_one_line_errors(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], error: str
) -> None:
    arguments = finetune_words(digits, tmp_path / "o")
    length = [] if "--minutes" in more else ["--steps", "1"]
    assert error in message(capsys, *arguments, *length, *more)


def test_aliases_without_a_class(run: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("thre: 3\n")
    arguments = [
        "train",
        str(run / "config.py"),
        "--work-dir",
        str(tmp_path / "o"),
        "--init-from",
        str(run / "best.pt"),
    ]
    line = message(capsys, *arguments, "--class-aliases", str(tmp_path / "a.txt"))
    assert "class alias 'thre' -> '3': no class 'thre' in the data; classes: 0, 1, 2" in line
    line = message(capsys, "finetune", "--out", str(run), "--resume", "--freeze", "backbone", "--gradual")
    assert "--freeze backbone (was not given), --gradual 0.5 (was not given)" in line
