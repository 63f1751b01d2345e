"""Number of files on the path of a sample from the JSON to the loss, and of a run from its arguments to step 1."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests import forked

TRACE = """
import json, sys
from pathlib import Path
from tldet.config import read_config
from tldet.data.dataset import CocoDataset
from tldet.data.loader import BatchOrder, train_batches
from tldet.data.transforms import HorizontalFlip, Resize
from tldet.models.detector import build_detector

root = Path(sys.argv[1])
package = str(Path(sys.modules["tldet"].__file__).parent)
model = read_config("retinanet_r50").data["model"]
model["backbone"]["weights"] = None
model["head"]["num_classes"] = 10
detector = build_detector(model).train()
seen = set()

def note(frame, event, _):
    name = frame.f_code.co_filename
    if name.startswith(package) and not name.endswith("__init__.py"):
        seen.add(str(Path(name).relative_to(package)))

sys.setprofile(note)
transforms = [Resize(short=96, long=128), HorizontalFlip()]
data = CocoDataset(str(root / "_annotations.coco.json"), str(root), transforms, cache=False)
sum(detector(next(train_batches(data, BatchOrder(data.sizes, 2)))).values()).backward()
sys.setprofile(None)
print(json.dumps(sorted(seen)))
"""


def test_from_json_to_the_loss_in_few_files(digits: Path) -> None:
    """The construction of the dataset is included; ``config`` itself is not counted."""
    done = subprocess.run(
        [sys.executable, "-c", TRACE, str(digits / "train")], capture_output=True, text=True, check=True
    )
    files = [name for name in json.loads(done.stdout.splitlines()[-1]) if not name.startswith("config/")]
    assert {"data/index.py", "coco/reader.py", "data/transforms.py", "models/boxes.py"} <= set(files)
    assert {"data/dataset.py", "data/loader.py", "models/heads/retinanet.py"} <= set(files)
    assert len(files) <= 19, " ".join(files)


def test_from_arguments_to_the_first_step_in_few_files(digits: Path, tmp_path: Path) -> None:
    """The way of the request, of the config, and of what is made of them; ``config`` itself is not counted."""
    script = Path(__file__).parent / "workflows" / "run_trace.py"
    done = forked.run([script, digits, tmp_path / "out"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    files = [name for name in found["passed"] if not name.startswith("config/")]
    assert {
        "workflows/training/finetune.py",
        "workflows/training/train.py",
        "workflows/training/assemble.py",
        "engine/trainer.py",
    } <= set(files)
    assert {"engine/step.py", "workflows/training/request.py", "workflows/training/choose.py"} <= set(files)
    assert len(files) <= 12, files
