"""A run killed and resumed equals the run left alone, bit for bit."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from tests.tools import same
from tldet import checkpoint
from tldet.engine import precision
from tldet.engine.logging import read_log
from tldet.engine.precision import Precision
from tldet.errors import DataError, OutputError, TrainingError
from tldet.models.ops.rewriting import Rewritten

from .conftest import Die, DieAt, assert_same_run


@pytest.mark.parametrize(
    "hook",
    [*(DieAt(step=n) for n in (3, 4, 17, 20, 39, 40)), *(DieAt(save=n) for n in (1, 4, 9))],
    ids=lambda hook: f"step{hook.step}" if hook.step > 0 else f"save{hook.save}",
)
def test_resumed_run_is_the_same(toy: ModuleType, whole: Path, tmp_path: Path, hook: DieAt) -> None:
    with pytest.raises(Die):
        toy.build(tmp_path, hooks=[hook]).run()
    torch.rand(100)  # another process would have another generator
    resumable = any(tmp_path.glob("step_*.pt"))
    result = toy.build(tmp_path).run(resume=resumable)
    assert (result.step, result.reason) == (40, "finished")
    assert_same_run(whole, tmp_path)


def test_workers_do_not_change_the_run(toy: ModuleType, whole: Path, tmp_path: Path) -> None:
    toy.build(tmp_path, workers=2).run()
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize(
    ("workers", "kills"),
    [(0, 6), pytest.param(2, 10, marks=pytest.mark.slow), pytest.param(0, 30, marks=pytest.mark.slow)],
)
def test_sigkill_at_random_moments(toy: ModuleType, whole: Path, tmp_path: Path, workers: int, kills: int) -> None:
    script = Path(__file__).with_name("toy_run.py")
    words = [sys.executable, str(script), str(tmp_path), *map(str, (workers, kills, workers + kills))]
    # A new interpreter: loader processes find the batches of a script only in the main module.
    done = subprocess.run(words, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[1]) >= min(toy.LEAST, kills), done.stdout
    assert_same_run(tmp_path / "whole", tmp_path / "killed")


def test_ctrl_c_finishes_the_step_saves_and_explains_resuming(toy: ModuleType, whole: Path, tmp_path: Path) -> None:
    class CtrlC(DieAt):
        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
            if batch_idx + 1 == 18:
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 18.*--resume continues the run"):
        toy.build(tmp_path, hooks=[CtrlC()]).run()
    assert signal.getsignal(signal.SIGINT) is before
    assert (tmp_path / "step_00000018.pt").exists()
    toy.build(tmp_path).run(resume=True)
    assert_same_run(whole, tmp_path)


def test_second_ctrl_c_aborts_at_once(toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tldet.system.signals.SAME_REQUEST", 0.0)

    class Twice(DieAt):
        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt, match="at once"):
        toy.build(tmp_path, hooks=[Twice()]).run()
    assert not list(tmp_path.glob("step_*.pt"))


def test_an_image_that_cannot_be_read_loses_no_step(toy: ModuleType, whole: Path, tmp_path: Path) -> None:
    def broken(start: int) -> Iterator[Any]:
        for number, batch in enumerate(toy.toy_batches(start), start):
            if number == 15:  # the second micro-batch of step 8, between two checkpoints
                raise DataError("p.jpg: is an empty file")
            yield batch

    with pytest.raises(DataError, match=r"^p.jpg: is an empty file; the run is saved after step 7; fix the data"):
        toy.build(tmp_path, batches=broken).run()
    toy.build(tmp_path).run(resume=True)
    assert_same_run(whole, tmp_path)


def test_broken_newest_checkpoint_is_passed_over(toy: ModuleType, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(Die):
        toy.build(tmp_path, hooks=[DieAt(step=20)]).run()
    newest = max(tmp_path.glob("step_*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    toy.build(tmp_path).run(resume=True)
    assert_same_run(whole, tmp_path)


def test_resuming_a_finished_run_is_a_no_op(toy: ModuleType, tmp_path: Path) -> None:
    first = toy.build(tmp_path).run()
    log = (tmp_path / "log.jsonl").read_bytes()
    again = toy.build(tmp_path).run(resume=True)
    assert again == first
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_runs_that_cannot_be_resumed_are_reported(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="nothing to resume"):
        toy.build(tmp_path / "none").run(resume=True)
    toy.build(tmp_path / "run", steps=2).run()
    with pytest.raises(TrainingError, match="contains an earlier run"):
        toy.build(tmp_path / "run", steps=2).run()
    other = torch.nn.Sequential(torch.nn.Linear(3, 3))
    with pytest.raises(TrainingError, match=r"step_00000002.pt belongs to another model"):
        toy.build(tmp_path / "run", model=other).run(resume=True)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be created"):
        toy.build(tmp_path / "file" / "run").run()


@pytest.mark.parametrize("step", [5, 20, 40])
@pytest.mark.parametrize("kill", [False, True])
def test_a_validation_that_a_broken_image_ended_is_made_up_for(
    toy: ModuleType, whole: Path, tmp_path: Path, step: int, kill: bool
) -> None:
    class DieSaving(DieAt):
        def before_save_checkpoint(self, runner: Any, checkpoint: Any) -> None:
            if checkpoint["training"] is not None:
                raise Die

    def broken(model: Any) -> Any:
        if (tmp_path / "log.jsonl").exists() and read_log(tmp_path / "log.jsonl")[-1]["step"] >= step - 1:
            raise DataError("p.jpg: is an empty file")
        return toy.evaluate(model)

    for resume in (False, True):  # it is still broken the second time
        with pytest.raises(DataError, match=rf"^p.jpg: is an empty file; the run is saved after step {step}; fix"):
            toy.build(tmp_path, evaluate=broken).run(resume=resume)
    if kill:  # after the validation was logged, before it is saved that it was made
        with pytest.raises(Die):
            toy.build(tmp_path, hooks=[DieSaving()]).run(resume=True)
        assert read_log(tmp_path / "log.jsonl")[-1]["type"] == "val"
    toy.build(tmp_path).run(resume=True)
    assert_same_run(whole, tmp_path)


def test_the_validation_of_initial_weights_stays_in_the_log(toy: ModuleType, tmp_path: Path) -> None:
    toy.build(tmp_path, steps=0).run()
    (first,) = read_log(tmp_path / "log.jsonl")
    assert (first["type"], first["step"]) == ("val", 0)
    for steps in (0, 2):  # finished, then made longer
        toy.build(tmp_path, steps=steps).run(resume=True)
        assert read_log(tmp_path / "log.jsonl")[0] == first
        assert len([r for r in read_log(tmp_path / "log.jsonl") if r["step"] == 0]) == 1


def test_a_new_run_clears_the_log_of_one_that_left_no_checkpoint(toy: ModuleType, tmp_path: Path) -> None:
    toy.build(tmp_path, steps=0).run()
    for path in tmp_path.glob("*.pt"):
        path.unlink()
    toy.build(tmp_path, steps=2).run()
    assert all(record["step"] > 0 for record in read_log(tmp_path / "log.jsonl"))


@pytest.mark.parametrize("key", ["normalizers", "rewrites", "validation_pending", "rng", "step"])
def test_a_checkpoint_of_another_version_is_named_with_advice(toy: ModuleType, tmp_path: Path, key: str) -> None:
    toy.build(tmp_path, steps=2).run()
    path = tmp_path / "step_00000002.pt"
    saved = checkpoint.load_checkpoint(path)
    del saved["training"][key]
    checkpoint.save(path, saved)
    with pytest.raises(TrainingError, match=rf"{path.name}: its training state has no '{key}'.*\(--init-from"):
        toy.build(tmp_path, steps=4).run(resume=True)


def test_a_resumed_run_takes_the_optimizer_options_it_is_given(toy: ModuleType, tmp_path: Path) -> None:
    toy.build(tmp_path, steps=2).run()
    model = toy.ToyModel()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.003, weight_decay=0.5, betas=(0.8, 0.9))
    toy.build(tmp_path, steps=4, model=model, optimizer=optimizer, policy="constant", warmup_steps=0).run(resume=True)
    saved = checkpoint.load_checkpoint(tmp_path / "step_00000004.pt")["training"]["optimizer"]
    (group,) = saved["param_groups"]
    expected = {"lr": 0.003, "initial_lr": 0.003, "weight_decay": 0.5, "betas": (0.8, 0.9)}
    assert {key: group[key] for key in expected} == expected
    assert saved["state"][0]["step"] == 4, "its state continues"


def depthwise_model(toy: ModuleType) -> torch.nn.Module:
    torch.manual_seed(1)
    model: torch.nn.Module = toy.ToyModel()
    model.norm = torch.nn.Sequential(torch.nn.Conv2d(8, 8, 5, 1, 2, groups=8), torch.nn.BatchNorm2d(8))
    return model


def test_a_resumed_run_keeps_its_backward_kernels(toy: ModuleType, tmp_path: Path) -> None:
    """Another timing, or none, must not change the weights of a resumed run."""
    rewritten = Precision(rewrites={"norm.0": ["input", "weight"]})

    def run(folder: Path, precision: Precision, resume: bool = False, **more: Any) -> Any:
        trainer = toy.build(folder, epochs=4, model=depthwise_model(toy), **more)
        trainer.set_precision(precision)
        trainer.run(resume=resume)
        return trainer

    run(tmp_path / "whole", rewritten)
    with pytest.raises(Die):
        run(tmp_path / "killed", rewritten, hooks=[DieAt(step=11)])
    assert isinstance(run(tmp_path / "killed", Precision(), resume=True).model.norm[0], Rewritten)
    assert toy.last(tmp_path / "whole", 20) == toy.last(tmp_path / "killed", 20)
    run(tmp_path / "native", Precision())
    weights = [
        checkpoint.load_checkpoint(tmp_path / name / "step_00000020.pt")["model"] for name in ("whole", "native")
    ]
    assert not same(*weights)  # else the test would show nothing


def test_a_run_of_native_kernels_stays_native(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(Die):
        toy.build(tmp_path, epochs=4, model=depthwise_model(toy), hooks=[DieAt(step=11)]).run()
    rewritten = Precision(rewrites={"norm.0": ["input"]})
    trainer = toy.build(tmp_path, epochs=4, model=depthwise_model(toy))
    trainer.set_precision(rewritten)
    trainer.run(resume=True)
    assert type(trainer.model.norm[0]) is torch.nn.Conv2d


@pytest.mark.parametrize(
    ("before", "after", "best"),
    [
        ({"training": {"best_metric": "AP"}}, {"training": {"best_metric": "AP"}}, 0.9),
        ({"training": {"best_metric": "AP50"}}, {"training": {"best_metric": "AP"}}, 0.3),
        ({"data": {"val": {"annotations": "a"}}}, {"data": {"val": {"annotations": "b"}}}, 0.3),
        ({"data": {"train": {}}}, {"data": {"train": {"annotations": "b"}}}, 0.9),
    ],
)
def test_values_of_another_validation_are_not_compared(
    toy: ModuleType, tmp_path: Path, before: dict[str, Any], after: dict[str, Any], best: float
) -> None:
    toy.build(tmp_path, steps=5, config=before, evaluate=lambda model: {"AP": 0.9}).run()
    result = toy.build(tmp_path, steps=10, config=after, evaluate=lambda model: {"AP": 0.3}).run(resume=True)
    assert result.best == best
    assert checkpoint.load_checkpoint(tmp_path / "best.pt")["meta"]["trained"]["metrics"] == {"AP": best}
    assert result.comparable_from == (0 if best == 0.9 else 6)
    again = toy.build(tmp_path, steps=15, config=after, evaluate=lambda model: {"AP": 0.3}).run(resume=True)
    assert again.comparable_from == result.comparable_from, "a resumed run keeps it"


def saved_as(path: Path, **training: Any) -> None:
    """Change what a checkpoint states of its training."""
    saved = checkpoint.load_checkpoint(path)
    saved["training"].update(training)
    checkpoint.save(path, saved)


FP16 = Precision("fp16", "cpu", reason="the GPU has no bf16")  # a gradient scaler works on the CPU too


def test_a_run_of_another_device_resumes_in_the_precision_of_this_one(
    toy: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A CPU run resumed on a GPU without bf16: the checkpoint has no state of a gradient scaler."""
    toy.build(tmp_path, steps=2).run()
    path = tmp_path / "step_00000002.pt"
    saved_as(path, device="another")
    run = toy.build(tmp_path, steps=4)
    run.set_precision(FP16)
    assert run.run(resume=True).step == 4
    assert run.precision == FP16
    assert (
        f"{path} was trained on device another in fp32; the run resumes with device cpu, precision fp16" in caplog.text
    )
    saved = checkpoint.load_checkpoint(tmp_path / "step_00000004.pt")["training"]
    assert (saved["precision"], saved["device"], saved["scaler"]["scale"] > 0) == ("fp16", "cpu", True)
    caplog.clear()
    saved_as(tmp_path / "step_00000004.pt", device="another")
    assert toy.build(tmp_path, steps=6).run(resume=True).step == 6, "and back, without a scaler"
    assert "was trained on device another in fp16; the run resumes with device cpu, precision fp32" in caplog.text


@pytest.mark.parametrize(("has_bf16", "expected"), [(False, "fp32"), (True, "bf16")])
def test_a_precision_that_the_device_does_not_have_is_converted(
    toy: ModuleType,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    has_bf16: bool,
    expected: str,
) -> None:
    """A bf16 run resumed on a device of the same type without bf16."""
    toy.build(tmp_path, steps=2).run()
    saved_as(tmp_path / "step_00000002.pt", precision="bf16")
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: has_bf16)
    run = toy.build(tmp_path, steps=4)
    assert run.run(resume=True).step == 4
    assert run.precision.name == expected
    assert (
        "was trained on device cpu in bf16; the run resumes with device cpu, precision fp32" in caplog.text
    ) is not has_bf16


def test_a_precision_of_the_user_is_taken(
    toy: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    toy.build(tmp_path, steps=2).run()
    run = toy.build(tmp_path, steps=4)
    run.set_precision(Precision("bf16", "cpu", reason=precision.USER_SPECIFIED))
    assert run.run(resume=True).step == 4
    assert run.precision.name == "bf16"
    assert "was trained on device cpu in fp32; the run resumes with device cpu, precision bf16" in caplog.text


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rng", 1),
        ("optimizer", 1),
        ("window", 3),
        ("metrics", 3),
        ("normalizers", [1]),
    ],
)
def test_a_malformed_training_state_is_one_line(toy: ModuleType, tmp_path: Path, key: str, value: Any) -> None:
    toy.build(tmp_path, steps=2).run()
    path = tmp_path / "step_00000002.pt"
    saved = checkpoint.load_checkpoint(path)
    saved["training"][key] = value
    checkpoint.save(path, saved)
    with pytest.raises(TrainingError, match=rf"{path.name} belongs to another model or optimizer") as raised:
        toy.build(tmp_path, steps=4).run(resume=True)
    assert "\n" not in str(raised.value)


def test_resumed_weights_of_another_kind(toy: ModuleType, tmp_path: Path) -> None:
    toy.build(tmp_path, steps=2).run()
    path = tmp_path / "step_00000002.pt"
    saved = checkpoint.load_checkpoint(path)
    saved["model"]["fc.bias"] = saved["model"]["fc.bias"].long()
    checkpoint.save(path, saved)
    with pytest.raises(TrainingError, match=r"tensor fc\.bias is integer \(torch\.int64\), in the model float"):
        toy.build(tmp_path, steps=4).run(resume=True)
