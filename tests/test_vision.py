"""Torchvision is imported without torch's compiler, and prediction does without it too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tldet.benchmarks.pairs import write_checkpoint
from tldet.config import load
from tldet.models.detector import build_detector

ASK = "print(sorted({'torch._dynamo', 'torch._dynamo.utils', 'sympy', 'triton'} & set(sys.modules)))"


def told(code: str, **environment: str) -> list[str]:
    given = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=given)
    return done.stdout.splitlines()


def test_the_compiler_comes_when_torchvision_asks_for_it() -> None:
    code = f"import sys; from tldet.vision import torchvision; {ASK}"
    code += "; print(sys.modules['torchvision.ops.roi_align'].is_compile_supported('meta'))"
    code += "; print('torch._dynamo' in sys.modules)"
    assert told(code) == ["[]", "False", "True"]


@pytest.mark.parametrize(
    "wants",
    [
        "from torch._dynamo.utils import is_compile_supported, counters",
        *(
            pytest.param(other, marks=pytest.mark.slow)
            for other in (
                "from torch._dynamo import utils; counters, is_compile_supported = utils.counters, "
                "utils.is_compile_supported",
                "import torch._dynamo; from torch._dynamo.utils import counters, is_compile_supported",
                "from torch._dynamo.utils import is_compile_supported as ask; ask('cpu')\n"
                "from torch._dynamo.utils import counters, is_compile_supported",
            )
        ),
    ],
)
def test_a_torchvision_that_wants_more_gets_it(tmp_path: Path, wants: str) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(wants + "\n")
    paths = os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])])
    code = "from tldet.vision import torchvision as t; import torch._dynamo.utils as u"
    code += "; print(t.counters is u.counters, t.is_compile_supported('meta'))"
    assert told(code, PYTHONPATH=paths) == ["True False"]


def test_the_compiler_that_is_there_stays() -> None:
    code = "import torch._dynamo.utils as u; from tldet.vision import torchvision; import sys"
    code += "; print(sys.modules['torchvision.ops.roi_align'].is_compile_supported is u.is_compile_supported)"
    assert told(code) == ["True"]


def test_prediction_does_without_the_compiler(tmp_path: Path) -> None:
    config = load("faster_rcnn_r50", {"model.backbone.weights": None, "model.backbone.name": "resnet18"}).data
    torch.manual_seed(0)
    path = write_checkpoint(tmp_path / "model.pt", config, build_detector(config["model"]), (64, 96))
    code = f"import sys, numpy, tldet; found = tldet.load({str(path)!r}, 'cpu', 'fp32')"
    code += f".predict(numpy.zeros((64, 96, 3), 'uint8')); print(type(found).__name__); {ASK}"
    assert told(code) == ["Detections", "[]"]
