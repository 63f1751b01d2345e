"""Pre-training: accuracy, bit-identical resuming, and a detector with all of its backbone weights."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file

from tests.tools import same
from tldet import checkpoint
from tldet.cli.main import main
from tldet.config import build, read_config
from tldet.data.digits import generate_crops
from tldet.engine import loop
from tldet.engine.logging import read_log
from tldet.engine.trainer import Trainer
from tldet.errors import CheckpointError, ConfigError, TrainingError
from tldet.models.detector import build_detector
from tldet.models.zoo import find_backbone
from tldet.registry import BACKBONES
from tldet.transfer.initial_weights import init_from, open_initial
from tldet.transfer.restore import restore
from tldet.transfer.weights import load_backbone_weights
from tldet.workflows.training.finetune import finetune
from tldet.workflows.training.pretrain import pretrain
from tldet.workflows.training.train_classifier import Accuracy

NAME = "mobilenetv3_small_050"
FAST = ["data.loader.batch_size=4", "training.precision=fp32", "training.log_every=1"]
# Everything that draws random numbers or carries state from step to step.
FULL = [*FAST, "training.accumulate=2", "training.checkpoint_every=0.2", "model.classifier.dropout=0.2"]


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zeros and ones of 32 x 32 pixels; only the accuracy test has a val folder."""
    made = generate_crops(tmp_path_factory.mktemp("crops"), train=600, val=200, side=32)
    for folder in [f for part in ("train", "val") for f in (made / part).iterdir() if f.name not in "01"]:
        shutil.rmtree(folder)
    return made


@pytest.fixture(scope="module")
def few(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty of each, none for validation."""
    out = tmp_path_factory.mktemp("few")
    for name in "01":
        (out / "train" / name).mkdir(parents=True)
        for path in sorted((crops / "train" / name).iterdir())[:20]:
            shutil.copy(path, out / "train" / name)
    return out


@pytest.fixture(scope="module")
def whole(few: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run left alone."""
    out = tmp_path_factory.mktemp("whole") / "out"
    pretrain(few, out=out, backbone=NAME, steps=8, seed=3, cfg_options=FULL, report=False)
    return out


def test_a_short_run_reduces_the_loss(crops: Path, tmp_path: Path) -> None:
    """Chance is 0.5; validation uses other digits and photographs than training."""
    options = ["data.loader.batch_size=16", "data.train.transforms.1.p=0.0", "data.train.transforms.0.scale=[0.6, 1.0]"]
    options += ["model.backbone.out_strides=[4]", "model.classifier.mixup=0.0", "model.classifier.cutmix=0.0"]
    options += ["optimizer.lr=0.002", "training.ema=0.95", "training.precision=fp32"]
    outcome = pretrain(crops, out=tmp_path / "out", backbone="resnet18", steps=60, cfg_options=options, report=False)
    assert outcome.train.best is not None
    assert outcome.train.best > 0.8
    assert outcome.train.metrics["val_loss"] < 0.5
    assert outcome.train.metrics["top5"] == 1.0, "of two classes"


def about(folder: Path) -> dict[str, str]:
    """Return the metadata of the backbone's file."""
    with safe_open(folder / "backbone.safetensors", framework="pt") as file:
        return dict(file.metadata())


def records(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in one.items() if key != "time"} for one in read_log(folder / "log.jsonl")]


def test_a_run_broken_off_twice_equals_the_run_left_alone(
    few: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With accumulation, mixing, dropout, EMA and a held-out part; nothing is saved when it breaks off."""
    out, step = tmp_path / "out", loop._step
    for ending in (4, 7):

        def breaking(run: Trainer, *given: Any, ending: int = ending) -> bool:
            if run.state.step == ending:
                raise RuntimeError("as if killed")
            return step(run, *given)

        monkeypatch.setattr(loop, "_step", breaking)
        start: dict[str, Any] = {"data": few, "backbone": NAME, "steps": 8, "seed": 3, "cfg_options": FULL}
        given = {"resume": True} if out.exists() else start
        with pytest.raises(RuntimeError, match="as if killed"):
            pretrain(out=out, **given, report=False)
    monkeypatch.setattr(loop, "_step", step)
    assert not (out / "step_00000008.pt").exists()
    pretrain(out=out, resume=True, report=False)
    for name in ("step_00000008.pt", "best.pt"):
        ours, theirs = checkpoint.load_checkpoint(whole / name), checkpoint.load_checkpoint(out / name)
        for state in (ours, theirs):
            if state["training"]:
                state["training"].pop("seconds")
        assert [key for key in ours if not same(ours[key], theirs[key])] == []
    assert records(whole) == records(out)
    ours, theirs = (load_file(folder / "backbone.safetensors") for folder in (whole, out))
    assert same(ours, theirs)
    assert about(whole) == about(out)


def test_a_detector_takes_the_whole_backbone(whole: Path) -> None:
    path = whole / "backbone.safetensors"
    backbone = build(BACKBONES, {"type": "TimmBackbone", "name": NAME, "out_strides": [8, 16, 32]})
    report = load_backbone_weights(backbone, str(path))
    assert (report.new, report.unused, report.adapted) == ([], [], [])
    assert sorted(report.copied) == sorted(backbone.state_dict())
    assert all(torch.equal(tensor, load_file(path)[name]) for name, tensor in backbone.state_dict().items())
    averaged = checkpoint.load_checkpoint(whole / "best.pt")["ema"]
    assert torch.equal(backbone.state_dict()["body.conv_stem.weight"], averaged["backbone.body.conv_stem.weight"])
    steps = checkpoint.load_checkpoint(whole / "best.pt")["meta"]["trained"]["steps"]
    assert f"2 classes, top-1 0.5000, {steps} steps" in report.summary()
    assert "few0/train" in report.summary()


def test_the_file_states_its_origin(whole: Path, few: Path) -> None:
    reported = about(whole)
    assert reported["pretrained_on"] == str(few / "train")
    assert (reported["classes"], reported["backbone"], reported["weights_source"]) == ("2", NAME, "random")
    assert {"top1", "top5", "steps", "preprocess", "versions"} <= set(reported)
    assert len(reported["config_sha256"]) == 64


def test_finetuning_starts_from_it(whole: Path, digits: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tldet")
    path = whole / "backbone.safetensors"
    options = ["data.loader.batch_size=2", "training.precision=fp32"]
    model = {"model": "retinanet_lite0", "backbone": NAME, "weights": path}
    finetune(digits, out=tmp_path / "out", **model, steps=1, cfg_options=options, report=False)
    assert f"initial weights {path} (pre-trained on" in caplog.text
    assert "none newly initialized, none unused" in caplog.text
    assert checkpoint.load_checkpoint(tmp_path / "out" / "best.pt")["meta"]["weights_source"] == str(path)


def test_pretraining_continues_from_weights(whole: Path, few: Path, tmp_path: Path) -> None:
    path = whole / "backbone.safetensors"
    options = [*FAST, f"model.backbone.weights={path}", "optimizer.lr=1e-12"]
    outcome = pretrain(few, out=tmp_path / "out", backbone=NAME, steps=1, cfg_options=options)
    assert outcome.backbone is not None
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "curves.png").is_file()
    assert not (tmp_path / "out" / "samples").exists(), "a classifier detects nothing"
    before, after = load_file(path), load_file(outcome.backbone)
    assert all(torch.allclose(before[n], after[n], atol=1e-6) for n in before if n.endswith("weight"))
    assert about(tmp_path / "out")["weights_source"] == str(path)


def test_a_classifier_is_no_detector(whole: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a classifier of `tldet pretrain`, not a detector; fine-tune"):
        restore(whole / "best.pt")
    detector = build_detector(read_config("retinanet_lite0")["model"])
    with pytest.raises(CheckpointError, match=r"is a classifier of `tldet pretrain`"):
        init_from(detector, whole / "best.pt")
    assert open_initial(whole / "best.pt") is None, "it holds a backbone's weights"


def test_norms_behind_the_given_maps_stay_behind(few: Path, tmp_path: Path) -> None:
    """A network without BatchNorm trains with a norm on its last map; a detector has others, of other levels."""
    outcome = pretrain(few, out=tmp_path / "out", backbone="convnext_atto", steps=1, cfg_options=FAST, report=False)
    assert outcome.backbone is not None
    backbone = build(BACKBONES, find_backbone("convnext_atto").config((8, 16, 32)))
    report = load_backbone_weights(backbone, str(outcome.backbone))
    assert (report.unused, report.adapted) == ([], [])
    assert all(name.startswith("out_norms.") for name in report.new)
    assert {"out_norms.0.weight", "out_norms.2.bias"} <= set(report.new)


def test_data_and_next_command_are_shown(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = shutil.copytree(whole, tmp_path / "out")
    assert main(["pretrain", "--no-report", "--out", str(out), "--resume"]) == 0
    printed, err = capsys.readouterr()
    assert "\ntrain: 36 images of 2 classes\nval: 4 images of 2 classes\n" in f"\n{err}"
    given = f"--backbone timm:{NAME} --weights {out / 'backbone.safetensors'} --data FOLDER --out FOLDER"
    assert f"\nnext:\n  tldet finetune {given}\n" in f"\n{printed}"


def test_a_recipe_of_pretraining_is_no_model_to_finetune(digits: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--model pretrain/lite0_imagenet: is not a recipe of a detector"):
        finetune(digits, out=tmp_path / "o", model="pretrain/lite0_imagenet", steps=1, report=False)


def test_no_length_trains_the_recipes_epochs(whole: Path) -> None:
    assert read_config("pretrain/lite0_imagenet")["schedule"]["epochs"] == 100
    config = read_config(whole / "config.py")
    assert config["schedule"]["steps"] == 8
    assert "epochs" not in config["schedule"]
    assert config["data"]["train"]["transforms"][0]["size"] == 32, "as large as the images are"


def message(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that ends with exit code 2."""
    code = main(["pretrain", "--no-report", "--steps", "1", *arguments])
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if "error:" in line]
    assert (code, len(lines)) == (2, 1), err
    assert "Traceback" not in err
    return lines[0]


def test_bad_input_is_a_one_line_error(
    few: Path, whole: Path, digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def error(data: Path, *more: str) -> str:
        given = ["--data", str(data), "--out", str(tmp_path / "o"), "--backbone", NAME]
        return message(capsys, *given, *([*more, "training.precision=fp32"] if "--cfg-options" in more else more))

    assert "use --data DIR" in message(capsys, "--out", str(tmp_path / "o"))
    assert "nowhere: no such folder" in error(tmp_path / "nowhere")
    assert "train: has no class folders" in error(digits), "a detection set's images lie in no class folders"
    assert "neither torchvision nor timm has it; nearest:" in error(few, "--backbone", "resnet-fifty")
    assert "model.classifier.smooth: unknown key; did you mean 'smoothing'?" in error(
        few, "--cfg-options", "model.classifier.smooth=0.1"
    )
    assert "model.neck: unknown key" in error(few, "--cfg-options", "model.neck.type=FPN")
    assert "pretraining takes ImageFolderDataset" in error(
        few, "--cfg-options", "data.train={'_delete_': True, 'type': 'CocoDataset', 'annotations': 'a', 'images': 'b'}"
    )
    assert "size=0 must be at least 1" in error(few, "--cfg-options", "data.train.transforms.0.size=0")
    assert "is none of top1, top5" in error(few, "--cfg-options", "training.best_metric=AP")
    assert "contains an earlier run" in message(capsys, "--data", str(few), "--out", str(whole))
    assert "other arguments: --steps " in message(capsys, "--out", str(whole), "--resume")
    with pytest.raises(TrainingError, match="nothing to resume"):
        pretrain(out=tmp_path / "new", resume=True, report=False)


def test_a_broken_image_ends_in_one_line(few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(few, tmp_path / "data")
    for path in (tmp_path / "data" / "train" / "1").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    line = message(capsys, "--data", str(tmp_path / "data"), "--out", str(tmp_path / "o"), "--backbone", NAME)
    assert "is a truncated JPEG" in line


def test_a_detector_does_not_train_on_class_folders(
    few: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    section = {"_delete_": True, "type": "ImageFolderDataset", "folder": str(few / "train")}
    name = "retinanet/retinanet_lite0_fpn_coco"
    code = main(["train", name, "--work-dir", str(tmp_path / "o"), "--cfg-options", f"data.train={section}"])
    assert code == 2
    assert "without boxes; use `tldet pretrain`" in capsys.readouterr().err


def test_the_reported_metrics_are_those_of_the_exported_weights(
    few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run whose first validation was the best one, by top-5."""
    scores = iter([(0.5, 0.9), (0.6, 0.7), (0.1, 0.2), (0.1, 0.1)])
    monkeypatch.setattr(
        Accuracy, "__call__", lambda *_: {**dict(zip(("top1", "top5"), next(scores), strict=True)), "val_loss": 1.0}
    )
    text = io.StringIO()
    options = [*FULL, "training.best_metric='top5'", "training.validate_every=0.5"]
    console = Console(file=text, width=200)
    outcome = pretrain(
        few, out=tmp_path / "out", backbone=NAME, steps=8, cfg_options=options, console=console, report=False
    )
    assert outcome.metrics["top5"] == 0.9 > outcome.train.metrics["top5"]
    assert f"weights of step {outcome.train.best_step}: top-1 0.5000, top-5 0.9000" in text.getvalue()
    assert about(tmp_path / "out")["top1"] == "0.5000"
    assert f"collapsed: top5 fell from 0.900 at step {outcome.train.best_step}" in text.getvalue()
