"""Startup time of commands and imports."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.report import Row, Suite
from benchmarks.suites import Bench
from tldet.config import read_config
from tldet.data.digits import generate

BARE = ["-c", "pass"]
TORCH = ["-c", "import torch, torchvision"]
TOOL = ["-m", "tldet.cli"]


def run(bench: Bench) -> Suite:
    """Compare the command line and the import with a bare interpreter, and training with the import of torch."""
    rows = [
        _row(bench, "tldet --help", [*TOOL, "--help"], BARE, "a bare interpreter"),
        _row(bench, "import tldet", ["-c", "import tldet"], BARE, "a bare interpreter"),
        _row(bench, "import for prediction", ["-c", "import tldet; tldet.load"], TORCH, "import torch, torchvision"),
    ]
    bench.show("writing a small dataset")
    config = _one_step(bench.folder / "start")
    numbers = iter(range(1000))

    def train() -> None:
        folder = str(bench.folder / f"run_{next(numbers)}")
        _call([*TOOL, "train", "--no-report", str(config), "--work-dir", folder])

    name = "training run of one step"
    comparison = bench.compare(name, train, lambda: _call(TORCH), 5, warmup=0)  # the rows above have warmed the disk
    rows.append(Row(name, "import torch, torchvision", comparison, "process"))
    return Suite("startup", rows)


def _row(bench: Bench, name: str, ours: Sequence[str], theirs: Sequence[str], baseline: str) -> Row:
    comparison = bench.compare(name, lambda: _call(ours), lambda: _call(theirs), 9, warmup=0 if bench.quick else 1)
    return Row(name, baseline, comparison, "process")


def _call(arguments: Sequence[str]) -> None:
    root = Path(__file__).resolve().parents[1]
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, cwd=root)


def _one_step(folder: Path) -> Path:
    """Write a config for one step on generated images, without evaluation."""
    generate(folder / "digits", train=4, valid=1, test=1, size=(96, 128))
    config = read_config("retinanet_lite0")
    config.data["model"]["head"]["num_classes"] = 10
    config.data["model"]["backbone"]["weights"] = None
    train = folder / "digits" / "train"
    section = {"type": "CocoDataset", "annotations": str(train / "_annotations.coco.json"), "images": str(train)}
    config.data["data"]["train"] = {**section, "transforms": [{"type": "Resize", "short": 96, "long": 128}]}
    for key in ("epochs", "minutes"):
        config.data["schedule"].pop(key, None)
    config.data["schedule"]["steps"] = 1
    config.data["training"] = {"precision": "fp32"}
    path = folder / "one_step.py"
    path.write_text(config.dump(), encoding="utf-8")
    return path
