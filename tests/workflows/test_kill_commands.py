"""Commands killed ten times: what has its final name is complete, and the same command runs in the same folder.

Commands that need a new folder (merge, split, convert) refuse one with files of the killed run, in one line.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import torchvision

from tldet import checkpoint
from tldet.data.digits import generate_crops
from tldet.transfer.sources import read_weights_file

KILLS = 10
SCRIPT = Path(__file__).with_name("kill_run.py")
OPTIONS = ["data.loader.workers=0", "training.checkpoint_every=0.2", "training.precision=fp32", "training.log_every=1"]
MODULES = ("torch._dynamo", "timm", "tldet.workflows.training.pretrain", "tldet.workflows.study.study")


@dataclass
class Killed:
    """What the kills left.

    Attributes:
        whole: the folder of the undisturbed run.
        folders: those of the killed ones.
        kills: for each kill, the files with final names and the temporary ones, and the exit code of the repetition.
        err: standard error of all runs.
    """

    whole: Path
    folders: list[Path]
    kills: list[dict[str, Any]]
    err: str


def killed(
    folder: Path,
    command: Sequence[object],
    *,
    resumed: Sequence[object] | None = None,
    repeated: Sequence[object] | None = None,
    modules: Sequence[str] = MODULES,
) -> Killed:
    """Run a command undisturbed, then with ten kills."""
    commands = {"command": command, "resumed": resumed, "repeated": repeated}
    spec: dict[str, Any] = {name: given and [*map(str, given)] for name, given in commands.items()}
    spec |= {"kills": KILLS, "seed": 0, "folder": str(folder), "modules": list(modules)}
    folder.mkdir()
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    path = os.pathsep.join([str(SCRIPT.parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    given = [sys.executable, str(SCRIPT), str(folder / "spec.json")]
    done = subprocess.run(given, env=environment, capture_output=True, text=True, timeout=1200, check=False)
    err = (folder / "stderr").read_text(encoding="utf-8")
    assert done.returncode == 0, (done.stderr + err)[-3000:]
    found = Killed(folder / "whole", sorted(folder.glob("killed*")), json.loads(done.stdout.splitlines()[-1]), err)
    assert len(found.kills) >= KILLS
    assert "Traceback" not in err
    assert any(one["files"] for one in found.kills), "no kill came after a file was complete"
    assert any(one["temporary"] for one in found.kills), "no kill came while a file was written"
    return found


def assert_repeatable(found: Killed) -> None:
    """Check that a command that needs a new folder runs in that of a killed run, unless it has files of that run."""
    for one in found.kills:
        assert one["code"] == (2 if one["files"] else 0), one
        assert one["files"] or not one["after"], "temporary files of the killed run are removed"
    refused = [line for line in found.err.splitlines() if "error:" in line]
    assert len(refused) == sum(one["code"] == 2 for one in found.kills)
    assert all(
        re.search("(is not empty|contains an earlier .*); choose another --out or remove it", e) for e in refused
    )


def outputs(folder: Path) -> dict[str, Path]:
    """The files with final names, by their paths in a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    return {str(path.relative_to(folder)): path for path in files if path.suffix not in (".tmp", ".lock")}


def assert_readable(path: Path) -> None:
    """Check that a file is complete; unknown kinds of files fail."""
    if path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".pt":
        checkpoint.load_checkpoint(path)
    elif path.suffix in (".jpg", ".png"):
        assert cv2.imread(str(path)) is not None, path
    elif path.suffix == ".jsonl":  # appended to: only the last line may be incomplete
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            json.loads(line)
    elif path.suffix == ".safetensors":
        assert read_weights_file(path)
    elif path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = csv.reader(file)
        assert all(len(row) == len(head) for row in rows), path
        assert path.read_bytes().endswith(b"\n")
    elif path.suffix == ".html":
        assert path.read_text(encoding="utf-8").rstrip().endswith("</html>"), path
    elif path.suffix == ".mp4":
        assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT) == FRAMES, path
    else:
        assert path.suffix in (".py", ".txt", ".xml", ".tex", ".svg", ".md", ".yaml", ".log"), path
        assert path.stat().st_size or path.parent.name == "labels" or path.suffix == ".log", path


FRAMES = 40


@pytest.fixture(scope="module")
def video(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "v.mp4"
    images = sorted((digits / "test").glob("*.jpg"))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (128, 96))
    for number in range(FRAMES):
        writer.write(cv2.resize(cv2.imread(str(images[number % len(images)])), (128, 96)))
    writer.release()
    return path


@pytest.mark.slow
def test_test(run: Path, tmp_path: Path) -> None:
    given = ["test", run / "best.pt", "--json", "{out}/metrics.json", "--results", "{out}/results.json"]
    found = killed(tmp_path / "k", given, repeated=[*given, "--overwrite"])
    assert {one["code"] for one in found.kills} == {0}
    for name, path in (item for one in found.folders for item in outputs(one).items()):
        assert path.read_bytes() == (found.whole / name).read_bytes()


@pytest.mark.slow
def test_predict(run: Path, digits: Path, tmp_path: Path, video: Path) -> None:
    given = ["predict", run / "best.pt", digits / "test", video, "--out", "{out}/drawn", "--score", "0.01"]
    given += ["--json", "{out}/r.json", "--csv", "{out}/r.csv", "--coco", "{out}/coco.json"]
    given += ["--yolo", "{out}/yolo", "--crops", "{out}/crops"]
    found = killed(tmp_path / "k", given)
    for path in (path for one in found.folders for path in outputs(one).values()):
        assert_readable(path)


@pytest.mark.slow
def test_predict_again_after_kills(run: Path, digits: Path, tmp_path: Path, video: Path) -> None:
    """With ``--overwrite`` in the folder of the killed run: the results of an undisturbed one, and nothing else."""
    given = ["predict", run / "best.pt", digits / "test", video, "--out", "{out}/drawn", "--score", "0.01"]
    given += ["--json", "{out}/r.json", "--yolo", "{out}/yolo"]
    found = killed(tmp_path / "k", given, repeated=[*given, "--overwrite"])
    assert {one["code"] for one in found.kills} == {0}
    names = outputs(found.whole).keys()
    for one in found.folders:
        assert outputs(one).keys() == names
        for name in names:
            assert (one / name).read_bytes() == (found.whole / name).read_bytes(), name


@pytest.mark.slow
def test_predict_resumed(run: Path, digits: Path, tmp_path: Path, video: Path) -> None:
    given = ["predict", run / "best.pt", digits / "test", video, "--jsonl", "{out}/r.jsonl", "--resume"]
    found = killed(
        tmp_path / "k",
        [*given, "--json", "{out}/r.json", "--score", "0.01"],
        repeated=[*given, "--json", "{out}/r.json", "--score", "0.01"],
    )
    assert {one["code"] for one in found.kills} == {0}
    for one in found.folders:
        assert (one / "r.json").read_bytes() == (found.whole / "r.json").read_bytes()


@pytest.mark.parametrize("copy", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_merge(digits: Path, tmp_path: Path, copy: bool) -> None:
    more = shutil.copytree(digits / "test", tmp_path / "more")
    given = ["merge", digits, more / "_annotations.coco.json", "--out", "{out}", *(["--copy"] if copy else [])]
    found = killed(tmp_path / "k", given, repeated=given, modules=["tldet.workflows.merge.merge"])
    assert_complete(found, "merge_report.json")


@pytest.mark.slow
def test_split(digits: Path, tmp_path: Path) -> None:
    given = ["split", digits / "train" / "_annotations.coco.json", "--folds", "3", "--out", "{out}"]
    found = killed(tmp_path / "k", given, repeated=given, modules=["tldet.workflows.split.split"])
    assert_complete(found, "split_report.json")


@pytest.mark.slow
@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_convert(digits: Path, tmp_path: Path, to: str) -> None:
    given = ["convert", digits, "--to", to, "--out", "{out}"]
    found = killed(tmp_path / "k", given, repeated=given, modules=["tldet.workflows.convert"])
    assert_complete(found, "convert_report.json")


def assert_complete(found: Killed, report: str) -> None:
    """Check the folders of a command that writes its report last."""
    assert_repeatable(found)
    for one in found.folders:
        files = outputs(one)
        for path in files.values():
            assert_readable(path)
        if report in files:
            assert files.keys() == outputs(found.whole).keys()


@pytest.mark.slow
def test_import(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = torchvision.models.detection.retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    torch.save(model.state_dict(), tmp_path / "retinanet.pth")
    given = ["import", tmp_path / "retinanet.pth", "--out", "{out}/imported.pt"]
    found = killed(tmp_path / "k", given, repeated=[*given, "--overwrite"])
    assert {one["code"] for one in found.kills} == {0}
    whole = checkpoint.load_checkpoint(found.whole / "imported.pt")["model"]
    for path in (path for one in found.folders for path in outputs(one).values()):
        state = checkpoint.load_checkpoint(path)["model"]
        assert all(torch.equal(tensor, state[name]) for name, tensor in whole.items())


@pytest.mark.slow
def test_report(run: Path, tmp_path: Path) -> None:
    given = ["report", run / "best.pt", "--out", "{out}/r.html", "--json", "{out}/r.json", "--tables", "{out}/tables"]
    found = killed(tmp_path / "k", given, repeated=[*given, "--overwrite"])
    assert {one["code"] for one in found.kills} == {0}
    for path in (path for one in found.folders for path in outputs(one).values()):
        assert_readable(path)


@pytest.mark.slow
def test_pretrain(tmp_path: Path) -> None:
    data = generate_crops(tmp_path / "crops", train=60, val=20, side=32)
    given = ["pretrain", "--no-report", "--data", data, "--out", "{out}", "--steps", "12", "--cfg-options", *OPTIONS]
    resumed = ["pretrain", "--no-report", "--out", "{out}", "--resume"]
    found = killed(tmp_path / "k", [*given, "data.loader.batch_size=10"], resumed=resumed)
    assert_resumed(found)
    whole, cut = (weights(folder / "step_00000012.pt") for folder in (found.whole, found.folders[-1]))
    assert all(torch.equal(tensor, cut[name]) for name, tensor in whole.items())
    assert (found.folders[-1] / "backbone.safetensors").is_file()


def assert_resumed(found: Killed) -> None:
    """Check the folders of a command that resumes: complete files, and in the end no temporary ones."""
    for path in (path for one in found.folders for path in outputs(one).values()):
        assert_readable(path)
    left = [path for one in found.folders for path in one.rglob("*.tmp")]
    assert not left, "temporary files of the killed runs are removed"


def weights(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = checkpoint.load_checkpoint(path)["model"]
    return found


@pytest.mark.slow
def test_study(digits: Path, tmp_path: Path) -> None:
    given = ["study", "transfer", "--data", digits, "--out", "{out}", "--variants", "finetuned", "scratch"]
    given += ["--steps", "6", "--model", "retinanet_lite0", "--seeds", "0"]
    given += ["--cfg-options", *OPTIONS, "data.loader.batch_size=2"]
    found = killed(tmp_path / "k", given, resumed=given)
    assert_resumed(found)
    whole, cut = (json.loads((folder / "results.json").read_text()) for folder in (found.whole, found.folders[-1]))
    assert [run["numbers"] for run in whole["runs"]] == [run["numbers"] for run in cut["runs"]]
