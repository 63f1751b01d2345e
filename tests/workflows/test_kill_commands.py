"""Commands killed at ten random moments: what has its final name is whole, and the command can be run again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import torchvision

from tldet import checkpoint
from tldet.data.digits import generate_crops

KILLS = 10
SCRIPT = Path(__file__).with_name("kill_run.py")
OPTIONS = ["data.loader.workers=0", "training.checkpoint_every=0.2", "training.precision=fp32", "training.log_every=1"]


def killed(folder: Path, command: Sequence[str | Path], resumed: Sequence[str | Path] | None = None) -> list[Path]:
    """Run a command undisturbed, then with ten kills; returns the folders of killed runs."""
    both = [None if words is None else list(map(str, words)) for words in (command, resumed)]
    spec = {"command": both[0], "resumed": both[1], "kills": KILLS, "seed": 0, "folder": str(folder)}
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    path = os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    given = [sys.executable, str(SCRIPT), str(folder / "spec.json")]
    done = subprocess.run(given, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(json.loads(done.stdout.splitlines()[-1])) == KILLS
    return sorted(folder.glob("killed*"))


def outputs(folder: Path) -> dict[str, Path]:
    """The files with final names, by their paths in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path for path in files if path.suffix not in (".tmp", ".lock")}


def assert_readable(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".pt":
        checkpoint.load_checkpoint(path)
    elif path.suffix in (".jpg", ".png"):
        assert cv2.imread(str(path)) is not None, path
    elif path.suffix == ".py":
        assert path.stat().st_size, path


@pytest.mark.slow
def test_test(run: Path, tmp_path: Path) -> None:
    given = ["test", run / "best.pt", "--json", "{out}/metrics.json", "--results", "{out}/results.json"]
    for one in killed(tmp_path / "k", given):
        for name, path in outputs(one).items():
            assert path.read_bytes() == (tmp_path / "k" / "whole" / name).read_bytes()


@pytest.mark.slow
def test_predict(run: Path, digits: Path, tmp_path: Path) -> None:
    images = sorted((digits / "test").glob("*.jpg"))
    video = cv2.VideoWriter(str(tmp_path / "v.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (128, 96))
    for number in range(40):
        video.write(cv2.resize(cv2.imread(str(images[number % len(images)])), (128, 96)))
    video.release()
    given = ["predict", run / "best.pt", digits / "test", tmp_path / "v.mp4", "--out", "{out}/drawn"]
    for one in killed(tmp_path / "k", [*given, "--json", "{out}/found.json", "--score", "0.01"]):
        for path in outputs(one).values():
            assert_readable(path)
            if path.suffix == ".mp4":
                assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == 40, path


@pytest.mark.slow
@pytest.mark.parametrize("copy", [False, True])
def test_merge(digits: Path, tmp_path: Path, copy: bool) -> None:
    more = shutil.copytree(digits / "test", tmp_path / "more")
    given = ["merge", digits, more / "_annotations.coco.json", "--out", "{out}"]
    for one in killed(tmp_path / "k", [*given, "--copy"] if copy else given):
        found = outputs(one)
        for path in found.values():
            assert_readable(path)
        if "merge_report.json" in found:  # it is written last
            assert found.keys() == outputs(tmp_path / "k" / "whole").keys()


@pytest.mark.slow
def test_import(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "retinanet.pth")
    runs = killed(tmp_path / "k", ["import", tmp_path / "retinanet.pth", "--out", "{out}/imported.pt"])
    whole = checkpoint.load_checkpoint(tmp_path / "k" / "whole" / "imported.pt")["model"]
    for path in (path for one in runs for path in outputs(one).values()):
        found = checkpoint.load_checkpoint(path)["model"]
        assert all(torch.equal(tensor, found[name]) for name, tensor in whole.items())


@pytest.mark.slow
def test_pretrain(tmp_path: Path) -> None:
    data = generate_crops(tmp_path / "crops", train=60, val=20, side=32)
    given = ["pretrain", "--no-report", "--data", data, "--out", "{out}", "--steps", "12", "--cfg-options", *OPTIONS]
    resumed = ["pretrain", "--no-report", "--out", "{out}", "--resume"]
    runs = killed(tmp_path / "k", [*given, "data.loader.batch_size=10"], resumed)
    for path in (path for one in runs for path in outputs(one).values()):
        assert_readable(path)
    whole, cut = (weights(folder / "step_00000012.pt") for folder in (tmp_path / "k" / "whole", runs[-1]))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    assert (runs[-1] / "backbone.safetensors").is_file()


def weights(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint.load_checkpoint(path)["model"]
    return found


@pytest.mark.slow
def test_study(digits: Path, tmp_path: Path) -> None:
    given = [
        "study",
        "transfer",
        "--data",
        digits,
        "--out",
        "{out}",
        "--variants",
        "finetuned",
        "scratch",
        "--steps",
        "6",
    ]
    given += ["--model", "retinanet_lite0", "--seeds", "0", "--cfg-options", *OPTIONS, "data.loader.batch_size=2"]
    runs = killed(tmp_path / "k", given, given)
    for path in (path for one in runs for path in outputs(one).values()):
        assert_readable(path)
    whole, cut = (json.loads((folder / "results.json").read_text()) for folder in (tmp_path / "k" / "whole", runs[-1]))
    assert [run["numbers"] for run in whole["runs"]] == [run["numbers"] for run in cut["runs"]]
