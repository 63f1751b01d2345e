"""Files that claim to be huge, through commands in processes of their own whose memory is measured."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

resource = pytest.importorskip("resource")
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """
import importlib, resource, sys
for name in ("tldet.workflows.training.finetune", "tldet.workflows.predict.predict", "tldet.workflows.evaluate"):
    importlib.import_module(name)
from tldet.cli.main import main
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
code = main(sys.argv[1:])
print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
KIB = 1024 if sys.platform == "darwin" else 1  # units of ru_maxrss per KiB


def measured(*words: object) -> tuple[int, float, str]:
    """Run a command; returns exit code, memory in MB beyond that of the imports, and its output."""
    given = [sys.executable, "-c", SCRIPT, *map(str, words)]
    done = subprocess.run(given, capture_output=True, text=True, check=False, cwd=ROOT, env=dict(os.environ))
    assert done.returncode == 0, done.stderr
    code, memory = done.stdout.splitlines()[-1].split()
    return int(code), int(memory) / KIB / 1000, done.stdout + done.stderr


def huge_jpeg(path: Path) -> Path:
    """A real JPEG whose frame header states 65500 x 65500 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "red").save(buffer, "JPEG")
    content = bytearray(buffer.getvalue())
    start = content.index(b"\xff\xc0")
    assert content[start + 5 : start + 9] == (48).to_bytes(2, "big") + (64).to_bytes(2, "big")
    content[start + 5 : start + 9] = 2 * (65500).to_bytes(2, "big")
    path.write_bytes(content)
    return path


@pytest.mark.slow
def test_a_huge_jpeg_is_not_decoded(run: Path, tmp_path: Path) -> None:
    path = huge_jpeg(tmp_path / "a.jpg")
    code, memory, err = measured("predict", run / "best.pt", path, "--json", tmp_path / "r.json")
    assert code == 2
    assert "a.jpg: has 65500 x 65500 pixels, more than the limit of 179 million" in err
    assert memory < 400, "of the detector"


@pytest.mark.slow
def test_a_huge_jpeg_in_a_dataset(digits: Path, tmp_path: Path) -> None:
    coco = json.loads((digits / "test" / "_annotations.coco.json").read_text(encoding="utf-8"))
    for image in coco["images"]:
        (tmp_path / image["file_name"]).write_bytes((digits / "test" / image["file_name"]).read_bytes())
    name = coco["images"][0]["file_name"]
    huge_jpeg(tmp_path / name)
    (tmp_path / "a.json").write_text(json.dumps(coco), encoding="utf-8")
    given = ["finetune", "--train", tmp_path / "a.json", "--images", tmp_path, "--out", tmp_path / "out"]
    code, memory, err = measured(*given)
    assert code == 2
    assert f"{name}: sizes differ: file 65500 x 65500, JSON 128 x 96" in err
    assert memory < 400
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate", "finetune", "merge", "check"])
def test_a_million_categories(digits: Path, tmp_path: Path, command: str) -> None:
    truth = digits / "test" / "_annotations.coco.json"
    coco = json.loads(truth.read_text(encoding="utf-8"))
    coco["categories"] = [{"id": number, "name": f"class {number}"} for number in range(1_000_000)]
    path, out = tmp_path / "a.json", tmp_path / "out"
    path.write_text(json.dumps(coco), encoding="utf-8")
    (tmp_path / "dt.json").write_text("[]", encoding="utf-8")
    given = {
        "evaluate": ["--gt", path, "--dt", tmp_path / "dt.json"],
        "finetune": ["--train", path, "--images", digits / "test", "--out", out],
        "merge": [path, truth, "--out", out],
        "check": [path, "--images", digits / "test"],
    }
    code, memory, told = measured(command, *given[command])
    assert code == (1 if command == "check" else 2)  # a finding
    assert "has 1000000 categories; more than 20000 are not supported" in " ".join(told.split())
    assert memory < 1000, "4 GB before there was a limit"
