"""tldet-runtime as users get it: its wheel in an environment without torch, on a Lite0 detector in both runtimes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

import tldet
from tests.exporting.test_export import detector
from tldet.exporting.files import write_export
from tldet.exporting.graph import GraphOptions, output_names, prepare_for_tracing, trace_graph
from tldet.exporting.verify import TOLERANCES, Comparison, compare_detections
from tldet.runtime.session import INPUTS
from tldet.structures.detections import Detections
from tldet.structures.masks import dense

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
IMPORT_SECONDS, FIRST_SECONDS, PEAK_MB = 0.5, 1.5, 300
SIZES = {"retinanet_lite0": (320, 416), "mask_rcnn_lite0": (96, 128)}
EXPORTS = {
    "m.onnx": ("retinanet_lite0", "onnx"),
    "m.xml": ("retinanet_lite0", "openvino"),
    "k.onnx": ("mask_rcnn_lite0", "onnx"),
}

# Seconds of the processor on one thread: those of the clock depend on what else the machine does.
MEASURE = """
import json, sys, time
from pathlib import Path
from tldet_runtime import NumpyDetector
imported = time.process_time()
detector = NumpyDetector(sys.argv[1], threads=1)
loaded = time.process_time()
found = detector(sys.argv[2], 0.0)
first = time.process_time()
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
others = [name for name in ("torch", "tldet", "PIL", "scipy") if name in sys.modules]
print(json.dumps({"import": imported, "load": loaded, "first": first, "MB": int(peak.split()[1]) / 1024,
                  "detections": len(found), "others": others}))
"""
DETECT = """
import sys
import numpy as np
from tldet_runtime import NumpyDetector
found = NumpyDetector(sys.argv[1])(sys.argv[3:], 0.0)
arrays = {f"{name}{n}": getattr(one, name) for n, one in enumerate(found) for name in ("boxes", "scores", "labels")}
np.savez(sys.argv[2], **arrays, **{f"masks{n}": one.masks for n, one in enumerate(found) if one.masks is not None})
"""


def installed(python: Path, *given: str) -> None:
    """Install packages with uv if there is one, which takes them from its cache, else with pip."""
    uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
    pip = [uv, "pip", "install", "--python", str(python), "--compile-bytecode"]
    command = pip if Path(uv).exists() else [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--quiet", *given], capture_output=True, text=True, check=False, timeout=900)
    if done.returncode and any(word in done.stderr for word in ("onnection", "ailed to fetch", "name resolution")):
        pytest.skip(f"needs a package index: {done.stderr.splitlines()[-1][:100]}")
    assert done.returncode == 0, done.stderr


def built_wheel(project: Path, folder: Path) -> tuple[Path, Path]:
    """Build the wheel of a project in a new environment; return its interpreter and the wheel."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    installed(python, "pip>=24", "hatchling>=1.27")
    build = [python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*build, project], check=True)
    (wheel,) = folder.glob("tldet*.whl")
    return python, wheel


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with the wheel and both runtimes."""
    found, wheel = built_wheel(ROOT / "runtime", tmp_path_factory.mktemp("environment"))
    installed(found, f"{wheel}[onnx,openvino]")
    return found


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Lite0 detectors with random weights: RetinaNet in both runtimes, and Mask R-CNN."""
    folder, found = tmp_path_factory.mktemp("exported"), {}
    for name, (recipe, format) in EXPORTS.items():
        model: Any = prepare_for_tracing(detector(recipe))
        options = GraphOptions(SIZES[recipe])
        short, long = sorted(options.size)
        masks = {"threshold": model.head.mask_threshold, "paste": model.head.mask_paste}
        metadata = {
            "format": 1, "kind": "detector", "class_names": ["a", "b", "c"], "category_ids": [1, 2, 3], "batch": 1,
            "input": {"short": short, "long": long}, "size": list(options.size), "precision": "fp32",
            "masks": masks if model.predicts_masks else None,
        }  # fmt: skip
        names = tuple(INPUTS), output_names(model, options)
        write_export(format, trace_graph(model, options), folder / name, names, metadata)
        found[name] = folder / name
    return found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Images of several sizes and formats: larger than the input, smaller, and of another shape."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = []
    for name, height, width in (("a.jpg", 480, 640), ("b.png", 200, 150), ("c.jpg", 1280, 1664), ("d.webp", 333, 500)):
        coarse = random.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
        cv2.imwrite(str(folder / name), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
        paths.append(folder / name)
    return paths


def run(python: Path, code: str, *given: object) -> str:
    command = [python, "-c", code, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", ["m.onnx", "m.xml", "k.onnx"])
def test_the_detections_are_those_of_the_predictor(
    python: Path, files: dict[str, Path], images: Sequence[Path], name: str, tmp_path: Path
) -> None:
    run(python, DETECT, files[name], tmp_path / "found.npz", *images)
    arrays = np.load(tmp_path / "found.npz")
    expected = tldet.load(files[name], "cpu").predict(list(images), 0.0)
    comparison = Comparison()
    for number, one in enumerate(expected):
        boxes, scores, labels = (torch.from_numpy(arrays[f"{part}{number}"]) for part in ("boxes", "scores", "labels"))
        found = Detections(boxes, scores, labels)
        compare_detections([one], [found], TOLERANCES["fp32"], comparison)
        if one.masks is not None:
            assert len(one) == len(found) > 0
            masks = arrays[f"masks{number}"]
            assert (masks != dense(one.masks).numpy()).mean() < 1e-4
    assert comparison.reference >= 100
    assert comparison.fraction >= 0.99, comparison.describe()


@pytest.mark.parametrize("name", ["m.onnx", "m.xml"])
def test_time_and_memory_up_to_the_first_detection(
    python: Path, files: dict[str, Path], images: Sequence[Path], name: str
) -> None:
    run(python, MEASURE, files[name], images[0])  # reads the files from the disk
    measured = [json.loads(run(python, MEASURE, files[name], images[0])) for _ in range(3)]
    found = min(measured, key=lambda one: one["first"])
    print(name, found)  # noqa: T201
    assert found["detections"] > 0
    assert found["others"] == []
    assert found["import"] < IMPORT_SECONDS
    assert found["first"] < FIRST_SECONDS
    assert found["MB"] < PEAK_MB


def test_torch_is_not_there_and_the_command_is(python: Path, files: dict[str, Path], images: Sequence[Path]) -> None:
    code = "import importlib.metadata as m\nfor one in m.distributions(): print(one.metadata['Name'])"
    listed = run(python, code).split()
    assert {"tldet-runtime", "numpy", "opencv-python-headless", "onnxruntime", "openvino"} <= set(listed)
    assert not {"torch", "tldet", "torchvision", "pillow", "opencv-python"} & {name.lower() for name in listed}
    command = python.with_name("tldet-runtime")
    done = subprocess.run([command, files["m.onnx"], images[1], "--json", "-"], capture_output=True, check=True)
    assert isinstance(json.loads(done.stdout), list)
    failed = subprocess.run([command, files["m.onnx"], "none.jpg"], capture_output=True, text=True, check=False)
    assert (failed.returncode, len(failed.stderr.splitlines())) == (2, 1)
