"""Library functions leave the process as it is: environment, thread counts, allocator and imported modules."""

from __future__ import annotations

import ast
import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.tools import same
from tldet.engine.precision import Precision
from tldet.models.ops.depthwise import GRADIENTS
from tldet.models.ops.rewriting import Rewritten, depthwise_calls
from tldet.models.surgery.frozen_norms import FoldedConv2d
from tldet.transfer.restore import restore

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = ("cli",)  # may change their own process
LOADER_PROCESS = {"data/workers.py": {"torch.set_num_threads", "cv2.setNumThreads"}}  # set_up_worker runs in no other
SEEDS = {  # what training draws from, see DESIGN on determinism; a run is resumed with the stored states
    "system/determinism.py": {
        *("torch.manual_seed", "np.random.seed", "random.seed", "np.random.set_state", "random.setstate"),
        *("torch.set_rng_state", "torch.cuda.set_rng_state_all"),
        *("torch.use_deterministic_algorithms", "torch.set_deterministic_debug_mode"),  # restored by the with block
    },
    "engine/loggers.py": {"np.random.set_state", "random.setstate"},  # restored after the call of a logger
}
HANDLERS = {  # restored at the end of a with block; ignore() is for worker processes and for the end of a process
    "system/signals.py": {"signal.signal", "signal.set_wakeup_fd", "signal.pthread_sigmask"},
    "runtime/command.py": {"signal.signal"},  # the command tldet-runtime
}
SEARCHED = {"plugins.py": {"sys.path.extend", "sys.path.remove"}}  # within one import, or while workers are started
RESTORED = {"system/imports.py": {"os.environ[]"}}  # within one import; see test_use_and_import below
CALLS = (
    *("os.environ.update", "os.environ.setdefault", "os.environ.pop", "os.environ.clear", "os.putenv", "os.unsetenv"),
    *("os.execv", "os.execve", "os.execvp", "os.execl", "os.chdir", "os.umask", "os.nice", "os.sched_setaffinity"),
    *("torch.set_num_threads", "torch.set_num_interop_threads", "cv2.setNumThreads", "cv2.setUseOptimized"),
    *("torch.set_default_dtype", "torch.set_default_device", "sys.modules.update", "sys.modules.pop"),
    *(f"sys.path.{name}" for name in ("append", "extend", "insert", "remove", "pop", "clear")),
    *("signal.signal", "signal.set_wakeup_fd", "signal.pthread_sigmask", "signal.setitimer", "signal.alarm"),
    *("random.seed", "random.setstate", "np.random.seed", "np.random.set_state", "numpy.random.seed"),
    *("torch.manual_seed", "torch.seed", "torch.set_rng_state", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"),
    *("torch.cuda.set_rng_state_all", "torch.use_deterministic_algorithms", "torch.set_deterministic_debug_mode"),
)
REPLACED = ("sys.modules", "sys.path", "sys.meta_path", "sys.path_hooks")
PREPARE = """
import os, pkgutil, signal, sys
import cv2, matplotlib, mmengine, timm, torch, torchvision  # what these change is theirs

def resident():
    return int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGE_SIZE')

def keeps_freed_memory():
    before = resident()
    block = bytearray(b'x') * 200_000_000
    del block
    return resident() - before > 100_000_000

def state():
    threads = torch.get_num_threads(), torch.get_num_interop_threads(), cv2.getNumThreads()
    handlers = [signal.getsignal(one) for one in signal.valid_signals()]
    return dict(os.environ), list(sys.path), handlers, threads, sys.platform == 'linux' and keeps_freed_memory()

before, imported = state(), dict(sys.modules)
"""
COMPARE = """
after = state()
assert before == after, (before, after)
assert all(sys.modules.get(name) is module for name, module in imported.items())
"""


def run_python(code: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def is_library(path: Path) -> bool:
    return path.relative_to(ROOT / "tldet").parts[0] not in COMMANDS


def test_torchvision_is_imported_as_it_is() -> None:
    code = "import sys, tldet; tldet.load; import torch._dynamo.utils as u"
    code += "; ops = sys.modules['torchvision.ops.roi_align']"
    code += "; print(u.__file__ is not None, ops.is_compile_supported is u.is_compile_supported)"
    assert run_python(code).split() == ["True", "True"]


def test_use_and_import_leave_the_process_as_it_was(digits: Path, run: Path, tmp_path: Path) -> None:
    """Use of some functions, then the import of all modules; also the variable set while albumentations is imported."""
    options = ["data.loader.batch_size=2", "training.precision=fp32"]
    image = next((digits / "test").glob("*.jpg"), None) or next((digits / "test").glob("*.png"))
    code = f"""{PREPARE}
import tldet
from tldet.workflows.predict.predict import predict
from tldet.workflows.test import test
from tldet.data.crops import albumentations
assert 'albumentations' not in sys.modules and albumentations()
out = {str(tmp_path / "out")!r}
tldet.finetune({str(digits)!r}, out=out, model='retinanet_lite0', steps=1, cfg_options={options!r})
test({str(run / "best.pt")!r}, device='cpu')
predict({str(run / "best.pt")!r}, [{str(image)!r}], json={str(tmp_path / "found.json")!r}, device='cpu')
{COMPARE}
import importlib
names = [module.name for module in pkgutil.walk_packages(tldet.__path__, 'tldet.')]
names = [name for name in names if name.split('.')[1] not in {COMMANDS!r}]
for name in names: importlib.import_module(name)
assert len(names) > 100
{COMPARE}"""
    run_python(code)


def changes(source: str) -> set[str]:
    """Changes of the process and of the classes of objects in a source text."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        targets: list[ast.expr] = []
        if isinstance(node, ast.Assign):
            targets = [
                t for target in node.targets for t in (target.elts if isinstance(target, ast.Tuple) else [target])
            ]
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            targets = [node.target]
        elif isinstance(node, ast.Delete):
            targets = node.targets
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in CALLS:
            found.add(ast.unparse(node.func))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found |= {"ctypes"} & set(names)
        for target in targets:
            if isinstance(target, ast.Attribute) and target.attr == "__class__":
                found.add("__class__")
            if isinstance(target, ast.Subscript) and ast.unparse(target.value) in ("os.environ", *REPLACED):
                found.add(f"{ast.unparse(target.value)}[]")
            if ast.unparse(target) in REPLACED:
                found.add(ast.unparse(target))
    return found


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import ctypes", {"ctypes"}),
        ("from ctypes import CDLL", {"ctypes"}),
        ("a.__class__, b.c = X, Y", {"__class__"}),
        ("os.environ['A'] = 'b'", {"os.environ[]"}),
        ("def f():\n    del sys.modules[name]", {"sys.modules[]"}),
        ("torch.set_num_threads(1)", {"torch.set_num_threads"}),
        ("sys.path.insert(0, 'a')", {"sys.path.insert"}),
        ("sys.path[:0] = ['a']", {"sys.path[]"}),
        ("sys.path += ['a']", {"sys.path"}),
        ("signal.signal(signal.SIGTERM, f)", {"signal.signal"}),
        ("np.random.seed(0)", {"np.random.seed"}),
        ("torch.Generator().manual_seed(0)", set()),
        ("x = os.environ.get('A'), sys.modules['b']", set()),
    ],
)
def test_the_search_finds_changes(source: str, expected: set[str]) -> None:
    assert changes(source) == expected


def test_library_code_does_not_change_the_process() -> None:
    allowed = {**LOADER_PROCESS, **RESTORED, **SEEDS, **HANDLERS, **SEARCHED}
    found = {
        name: changed
        for path in sorted((ROOT / "tldet").rglob("*.py"))
        if is_library(path) and (changed := changes(path.read_text(encoding="utf-8")))
        if changed != allowed.get(name := path.relative_to(ROOT / "tldet").as_posix())
    }
    assert found == {}


def test_a_fine_tuned_model_can_be_copied_and_pickled(run: Path) -> None:
    """With folded norms and rewritten convolutions, as the trainer leaves it."""
    from tldet.models.surgery.frozen_norms import fold_frozen_norms

    model, _ = restore(run / "best.pt")
    keys = list(model.state_dict())
    assert fold_frozen_norms(model.backbone.freeze().train()) >= 40  # type: ignore[operator]
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    found = depthwise_calls(model, lambda: model.backbone(image))
    Precision(rewrites=dict.fromkeys(found, GRADIENTS)).prepare(model)
    kinds = [isinstance(m, (FoldedConv2d, Rewritten)) for m in model.modules()]
    assert sum(kinds) >= 40
    expected = model.backbone(image)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert list(other.state_dict()) == keys
        assert same(dict(other.state_dict()), dict(model.state_dict()))
        assert [isinstance(m, (FoldedConv2d, Rewritten)) for m in other.modules()] == kinds
        assert all(torch.equal(a, b) for a, b in zip(other.backbone(image), expected, strict=True))
        own = {id(p) for p in other.parameters()}
        assert own.isdisjoint(id(p) for p in model.parameters())
        torch.autograd.backward(sum(level.sum() for level in other.backbone(image)))
        assert all(p.grad is None for p in model.parameters())
