"""The process of a command: allocator, and torchvision without torch's compiler."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.pairs import write_checkpoint
from tldet.cli.process import RUNNING, is_glibc
from tldet.config import read_config
from tldet.models.detector import build_detector

ROOT = Path(__file__).resolve().parents[2]
LOADED = "print(sorted({'torch._dynamo', 'torch._dynamo.utils', 'sympy', 'triton'} & set(sys.modules)))"
KEPT = """
def kept():
    resident = lambda: int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')
    before = resident()
    block = bytearray(b'x') * 200_000_000
    del block
    return resident() - before > 100_000_000
"""
glibc = pytest.mark.skipif(not is_glibc(), reason="the allocator is not glibc's")


def output_of(code: str, **environment: str) -> list[str]:
    given = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=given)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@glibc
@pytest.mark.parametrize(("command", "keeps"), [("predict", True), ("finetune", True), ("evaluate", False)])
def test_commands_that_run_a_network_keep_freed_memory(command: str, keeps: bool) -> None:
    code = f"import os; from tldet.cli import main as cli; print('started'){KEPT}cli.main = lambda a: print(a, kept())"
    assert output_of(f"{code}\ncli.entry([{command!r}, 'a b.pt', '--out', ''])") == [
        "started",  # once: a command does not restart itself
        f"[{command!r}, 'a b.pt', '--out', ''] {keeps}",
    ]


@glibc
def test_free_memory_is_returned_on_request() -> None:
    code = f"import os; from tldet.cli import process; process.keep_freed_memory(){KEPT}print(kept())"
    code += "; print(process.return_free_memory()); print(kept())"
    assert output_of(code) == ["True", "True", "True"]


def test_opencv_does_not_print_beside_tldet() -> None:
    code = "from tldet.cli.process import prepare_process; prepare_process('predict'); import cv2"
    code += "; cv2.VideoCapture(99)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_every_command_that_runs_a_network_is_known() -> None:
    from tldet.cli.main import COMMANDS

    others = {"convert", "evaluate", "merge", "models", "import", "merge-results", "split", "data", "watch"}
    assert set(RUNNING) | others == set(COMMANDS)


@pytest.mark.parametrize("command", ["predict", "test"])
def test_commands_that_predict_start_without_the_compiler(command: str) -> None:
    argv = [command, "missing.pt", *(["missing.jpg", "--out", "o"] if command == "predict" else [])]
    code = f"import sys; from tldet.cli.main import main; print(main({argv!r}), 'torchvision' in sys.modules); {LOADED}"
    assert output_of(code) == ["2 True", "[]"]


def test_help_does_not_import_torch() -> None:
    code = "import sys; from tldet.cli.main import entry\ntry: entry(['predict', '--help'])\n"
    code += "except SystemExit: print('torch' in sys.modules)"
    assert output_of(code)[-1] == "False"


IMPORT = "from tldet.cli.process import import_without_compiler; import_without_compiler(); import torchvision"


def test_the_compiler_is_imported_when_torchvision_needs_it() -> None:
    code = f"import sys; {IMPORT}; {LOADED}"
    code += "; print(sys.modules['torchvision.ops.roi_align'].is_compile_supported('meta'))"
    code += "; print('torch._dynamo' in sys.modules)"
    assert output_of(code) == ["[]", "False", "True"]


@pytest.mark.parametrize(
    "imports",
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
def test_a_torchvision_that_needs_more_gets_it(tmp_path: Path, imports: str) -> None:
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(imports + "\n")
    code = f"{IMPORT} as t; import torch._dynamo.utils as u"
    code += "; print(t.counters is u.counters, t.is_compile_supported('meta'))"
    assert output_of(code, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)])) == ["True False"]


def test_an_imported_compiler_stays() -> None:
    code = f"import torch._dynamo.utils as u; {IMPORT}; import sys"
    code += "; print(sys.modules['torchvision.ops.roi_align'].is_compile_supported is u.is_compile_supported)"
    assert output_of(code) == ["True"]


def test_prediction_does_without_the_compiler(tmp_path: Path) -> None:
    config = read_config("faster_rcnn_r50", {"model.backbone.weights": None, "model.backbone.name": "resnet18"}).data
    torch.manual_seed(0)
    path = write_checkpoint(tmp_path / "model.pt", config, build_detector(config["model"]), (64, 96))
    code = f"import sys, numpy, tldet; {IMPORT}; found = tldet.load({str(path)!r}, 'cpu', 'fp32')"
    code += f".predict(numpy.zeros((64, 96, 3), 'uint8')); print(type(found).__name__); {LOADED}"
    assert output_of(code) == ["Detections", "[]"]
