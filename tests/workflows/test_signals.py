"""SIGTERM and SIGUSR1 to the process group of a real fine-tuning: saved, exit code 130, and resumed.

``timeout`` and job managers signal all processes of a job; the loader workers must leave that to the main process.
"""

from __future__ import annotations

import json
import os
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests import forked
from tests.tools import same
from tldet import checkpoint

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups of POSIX")
OPTIONS = ["training.log_every=1", "training.checkpoint_every=None", "training.validate_every=0.5"]
OPTIONS += ["training.precision=fp32", "data.loader.batch_size=2", "data.loader.eval_batch_size=1"]


def words(digits: Path, out: Path, steps: int, workers: int, *more: str, images: int = 16) -> list[str]:
    """A run whose epoch has 8 steps, with a validation of 16 images after each fourth step."""
    coco = json.loads((digits / "train" / "_annotations.coco.json").read_text(encoding="utf-8"))
    ids = {one["id"] for one in coco["images"][:images]}
    kept = {"images": coco["images"][:images], "annotations": [a for a in coco["annotations"] if a["image_id"] in ids]}
    val = out.parent / "val.json"
    val.write_text(json.dumps({**coco, **kept}), encoding="utf-8")
    given = ["finetune", "--no-report", "--train", str(digits / "train" / "_annotations.coco.json"), "--val", str(val)]
    given += ["--images", str(digits / "train"), "--model", "retinanet_lite0", "--out", str(out)]
    settings = ["--steps", str(steps), "--workers", str(workers), *more]
    return ["tldet", *given, *settings, "--cfg-options", *OPTIONS]


def wait_for_lines(log: Path, count: int, process: BaseProcess) -> None:
    """Wait until a run has logged a number of lines."""
    start = time.monotonic()
    while not log.exists() or log.read_bytes().count(b"\n") < count:
        assert process.is_alive(), "the run has ended"
        assert time.monotonic() - start < 200, "the run does not begin"
        time.sleep(0.005)


def interrupted(given: list[str], out: Path, after: int, number: int, output: Path) -> tuple[int, str]:
    """Signal the group of a run once it has logged a number of steps; returns exit code and standard error."""
    output.mkdir()
    process = forked.start(given, output, group=True)
    wait_for_lines(out / "log.jsonl", after, process)
    time.sleep(0.3 if after == 4 else 0.0)  # in the validation
    assert process.pid is not None
    os.killpg(process.pid, number)
    time.sleep(0.1)
    os.killpg(process.pid, number)  # the same request once more
    process.join(100)
    assert process.exitcode is not None
    return process.exitcode, (output / "stderr").read_text(encoding="utf-8")


def assert_saved(out: Path, code: int, err: str, *, validating: bool) -> int:
    """Check exit code, last line and checkpoint of an interrupted run; returns its step."""
    assert code == 130, err
    assert "Traceback" not in err
    training = checkpoint.load_checkpoint(max(out.glob("step_*.pt")))["training"]
    assert f"stopped after step {training['step']}, saved" in err.splitlines()[-1]
    assert training["validation_pending"] is validating
    assert not list(out.glob(".*.tmp"))
    return int(training["step"])


def test_a_terminated_run_is_saved_and_resumes(digits: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, err = interrupted(words(digits, out, 40, 1, images=1), out, 1, signal.SIGTERM, tmp_path / "first")
    step = assert_saved(out, code, err, validating=False)
    assert 1 <= step < 4
    longer = ["--cfg-options", f"schedule.steps={step + 1}", "training.validate_every=None"]
    done = forked.run(["tldet", "finetune", "--no-report", "--out", out, "--resume", *longer])
    assert done.returncode == 0, done.stderr
    assert f"after step {step}" in done.stderr
    assert checkpoint.step_path(out, step + 1).exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("moment", ["train", "validate"])
def test_a_signalled_run_resumes_to_the_weights_of_an_undisturbed_one(
    digits: Path, tmp_path: Path, whole: Path, moment: str, number: int
) -> None:
    out, validating = tmp_path / "out", moment == "validate"
    given = words(digits, out, 8, 2)
    code, err = interrupted(given, out, 4 if validating else 2, number, tmp_path / "first")
    step = assert_saved(out, code, err, validating=validating)
    assert step == 4 if validating else 2 <= step < 4
    done = forked.run(words(digits, out, 8, 2, "--resume"))
    assert done.returncode == 0, done.stderr
    ours, theirs = (checkpoint.load_checkpoint(folder / "step_00000008.pt") for folder in (whole, out))
    assert same(ours["model"], theirs["model"])
    assert ours["training"]["metrics"] == theirs["training"]["metrics"]


@pytest.fixture(scope="module")
def whole(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "out"
    done = forked.run(words(digits, out, 8, 0))
    assert done.returncode == 0, done.stderr
    return out
