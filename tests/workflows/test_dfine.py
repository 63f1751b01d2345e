"""``tldet finetune --model dfine_lite0``: resuming, initial weights by class name, and frozen parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tests.tools import same
from tldet import checkpoint
from tldet.cli.main import main
from tldet.transfer.restore import restore
from tldet.workflows.training.finetune import finetune

MODEL = "dfine_lite0"
OPTIONS = [
    "data.loader.batch_size=2",
    "training.checkpoint_every=0.25",
    "training.log_every=1",
    "training.precision=fp32",
    "model.head.num_queries=30",
    "model.head.settings.num_dn_queries=8",
]


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dfine") / "out"
    finetune(digits, out=out, model=MODEL, steps=4, cfg_options=OPTIONS, report=False)
    return out


def test_a_resumed_run_is_the_same(whole: Path, tmp_path: Path) -> None:
    """Weights, averages, optimizer and normalizers; the noise of denoising queries is that of the step."""
    shutil.copytree(whole, tmp_path / "out")
    for step in (3, 4):
        (tmp_path / "out" / f"step_{step:08d}.pt").unlink(missing_ok=True)
    finetune(out=tmp_path / "out", resume=True, report=False)
    ours, theirs = (checkpoint.load_checkpoint(one / "step_00000004.pt") for one in (tmp_path / "out", whole))
    assert same(ours["model"], theirs["model"])
    assert same(ours["ema"], theirs["ema"])
    for part in ("optimizer", "normalizers"):
        assert same(ours["training"][part], theirs["training"][part]), part


def some(digits: Path, folder: Path, names: Mapping[str, str]) -> Path:
    """The training annotations of some digits, under other names."""
    truth = json.loads((digits / "train" / "_annotations.coco.json").read_text())
    chosen = [{**c, "name": names[c["name"]]} for c in truth["categories"] if c["name"] in names]
    objects = [a for a in truth["annotations"] if a["category_id"] in {c["id"] for c in chosen}]
    path = folder / "some.json"
    path.write_text(json.dumps({**truth, "categories": chosen, "annotations": objects}))
    return path


def test_initial_weights_by_class_name(
    whole: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = some(digits, tmp_path, {"3": "three", "7": "7", "9": "new one"})
    (tmp_path / "aliases.json").write_text('{"three": "3"}')
    given = ["finetune", "--no-report", "--train", str(truth), "--val", str(truth), "--images", str(digits / "train")]
    given += [
        "--model",
        MODEL,
        "--init-from",
        str(whole / "best.pt"),
        "--class-aliases",
        str(tmp_path / "aliases.json"),
    ]
    given += ["--out", str(tmp_path / "out"), "--steps", "0", "--cfg-options", *OPTIONS]
    assert main(given) == 0
    assert "classifier weights copied for 2 of 3 classes" in capsys.readouterr().out
    old = checkpoint.load_checkpoint(whole / "best.pt")["ema"]
    new = checkpoint.load_checkpoint(tmp_path / "out" / "step_00000000.pt")["model"]
    for layer in ("proposal.cls_score", "decoder.layers.0.cls_score", "decoder.layers.2.cls_score", "denoising_embed"):
        assert torch.equal(new[f"head.{layer}.weight"][:2], old[f"head.{layer}.weight"][[3, 7]]), layer


def test_a_frozen_backbone_keeps_no_activations(digits: Path, tmp_path: Path) -> None:
    """No parameter of it requires a gradient, so its features do not either; none of its weights moves."""
    finetune(digits, out=tmp_path / "out", model=MODEL, steps=1, freeze=["backbone"], cfg_options=OPTIONS, report=False)
    trained = checkpoint.load_checkpoint(tmp_path / "out" / "step_00000001.pt")
    start = finetune(digits, out=tmp_path / "start", model=MODEL, steps=0, cfg_options=OPTIONS, report=False)
    assert start.result is not None
    before = checkpoint.load_checkpoint(tmp_path / "start" / "step_00000000.pt")["model"]
    moved = {name.split(".")[0] for name, one in trained["model"].items() if not torch.equal(one, before[name])}
    assert moved == {"neck", "head"}
    model, _ = restore(tmp_path / "out" / "step_00000001.pt")
    model.train()
    model.backbone.requires_grad_(False)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t.numel()), t)[1], lambda t: t):
        model.backbone(torch.rand(1, 3, 96, 128))
    assert not kept
