"""Signals that ask a run to stop: nothing is lost, whenever they arrive and however many."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from types import ModuleType
from typing import Any

import pytest

from tldet import checkpoint
from tldet.cli.main import main
from tldet.system import signals
from tldet.system.signals import STOP_SIGNALS, Interrupts, Stopped, held, stop_signals

from .conftest import DieAt, assert_same_run


@pytest.fixture(autouse=True)
def _hangup_is_not_ignored() -> Iterator[None]:
    """Under ``nohup``, the tests would inherit that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(*numbers: int) -> None:
    for number in numbers:
        os.kill(os.getpid(), number)


def wait_for(number: int) -> None:
    send(number)
    time.sleep(5)
    pytest.fail("nothing ended it")


class Signals(DieAt):
    """A hook that sends signals to this process after a step."""

    def __init__(self, step: int, *numbers: int) -> None:
        super().__init__(step)
        self.numbers = numbers

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
        if batch_idx + 1 == self.step:
            send(*self.numbers)


@pytest.mark.parametrize("number", STOP_SIGNALS, ids=lambda number: number.name)
def test_each_signal_saves_and_is_answered_as_before_afterwards(toy: ModuleType, tmp_path: Path, number: int) -> None:
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt, match=r"stopped after step 18.*--resume"):
        toy.build(tmp_path, hooks=[Signals(18, number)]).run()
    assert signal.getsignal(number) is before
    assert checkpoint.load_checkpoint(tmp_path / "step_00000018.pt")["training"]["step"] == 18


@pytest.mark.parametrize("numbers", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM, signal.SIGINT, signal.SIGTERM)])
def test_signals_within_half_a_second_are_one(
    toy: ModuleType,
    whole: Path,
    tmp_path: Path,
    numbers: tuple[int, ...],
) -> None:
    with pytest.raises(KeyboardInterrupt, match="stopped after step 18"):
        toy.build(tmp_path, hooks=[Signals(18, *numbers)]).run()
    toy.build(tmp_path).run(resume=True)
    assert_same_run(whole, tmp_path)


def test_only_another_ctrl_c_aborts() -> None:
    now = [0.0]
    seen: list[str] = []
    with Interrupts(lambda: seen.append("first"), clock=lambda: now[0]) as interrupts:
        send(signal.SIGUSR1)
        for seconds, number in (
            (0.3, signal.SIGINT),
            (0.6, signal.SIGTERM),
            (1.2, signal.SIGUSR1),
            (1.5, signal.SIGINT),
        ):
            now[0] = seconds
            send(number)
        assert (interrupts.requested, seen) == (True, ["first"])
        now[0] = 2.0
        with pytest.raises(KeyboardInterrupt, match="at once"):
            send(signal.SIGINT)


def test_a_signal_counts_when_it_arrives_not_when_a_long_operation_lets_its_handler_run() -> None:
    def long_operation() -> float:
        start = time.monotonic()
        hashlib.pbkdf2_hmac("sha256", b"", b"", 5_000_000)
        return time.monotonic() - start

    with Interrupts(lambda: None) as interrupts:
        send(signal.SIGINT)
        for number in (signal.SIGINT, signal.SIGTERM):
            Timer(0.1, os.kill, (os.getpid(), number)).start()
        assert long_operation() > 1
        assert interrupts.requested
        with pytest.raises(KeyboardInterrupt, match="at once"):
            send(signal.SIGINT)


def test_held_signals_are_handled_afterwards_although_another_thread_receives_them() -> None:
    end, seen = threading.Event(), []
    thread = threading.Thread(target=end.wait)
    thread.start()  # blocks no signal

    def work() -> None:
        with held():
            send(signal.SIGTERM)
            time.sleep(0.05)
            seen.append(interrupts.requested)

    try:
        with Interrupts() as interrupts, pytest.raises(KeyboardInterrupt):
            work()
    finally:
        end.set()
        thread.join()
    assert seen == [False]
    assert interrupts.requested


def test_a_block_ends_at_once_and_only_inside() -> None:
    with Interrupts(lambda: None) as interrupts:
        with interrupts.at_once():
            pass
        send(signal.SIGTERM)
        with pytest.raises(Stopped), interrupts.at_once():
            pytest.fail("the signal has come before")
    with Interrupts(lambda: None) as interrupts, pytest.raises(Stopped):
        interrupts.ending(wait_for)(signal.SIGTERM)
    assert interrupts.requested


class SignalWhenSaved(DieAt):
    """A hook that sends a signal to this process while the last checkpoint is written."""

    def before_save_checkpoint(self, runner: Any, checkpoint: dict[str, Any]) -> None:
        if runner.state.step == runner.state.total and checkpoint["training"] is not None:
            send(signal.SIGINT)


def test_a_signal_after_the_last_step_is_not_lost(toy: ModuleType, whole: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="training is complete and saved"):
        toy.build(tmp_path, hooks=[SignalWhenSaved()]).run()
    result = toy.build(tmp_path).run(resume=True)
    assert (result.step, result.reason) == (40, "finished")
    assert_same_run(whole, tmp_path)


@pytest.mark.parametrize(
    "error", [OSError(5, "Input/output error"), RuntimeError("reentrant call inside <_io.BufferedWriter>")]
)
def test_a_message_that_cannot_be_printed_does_not_keep_a_run_from_saving(error: Exception) -> None:
    def gone() -> None:
        raise error

    with Interrupts(gone) as interrupts:
        send(signal.SIGHUP)
    assert interrupts.requested


def test_nohup_is_respected() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_signals(), Interrupts(lambda: None) as interrupts:
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            send(signal.SIGHUP)
            assert not interrupts.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_duplicate_after_the_run_does_not_disturb_its_message() -> None:
    with stop_signals():
        with Interrupts(lambda: None) as interrupts:
            send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert interrupts.requested
    with pytest.raises(KeyboardInterrupt), stop_signals():
        send(signal.SIGTERM)


@pytest.mark.parametrize("step", [5, 20, 40])
def test_a_signal_ends_a_validation_which_the_resumed_run_makes(
    toy: ModuleType,
    whole: Path,
    tmp_path: Path,
    step: int,
) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        if trainer.state.step == step:
            send(signal.SIGTERM)
            time.sleep(20)
            pytest.fail("the validation went on")
        result: dict[str, float] = toy.evaluate(model)
        return result

    trainer = toy.build(tmp_path, evaluate=evaluate)
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt, match=f"stopped after step {step}, saved"):
        trainer.run()
    assert time.monotonic() - start < 15
    assert trainer.model.training
    assert checkpoint.load_checkpoint(tmp_path / f"step_{step:08d}.pt")["training"]["validation_pending"]
    toy.build(tmp_path).run(resume=True)
    assert_same_run(whole, tmp_path)


def test_a_signal_ends_the_validation_of_initial_weights(toy: ModuleType, tmp_path: Path) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        send(signal.SIGUSR1)
        return {"AP": 1.0}

    with pytest.raises(KeyboardInterrupt, match="stopped after step 0, saved"):
        toy.build(tmp_path, steps=0, evaluate=evaluate).run()
    result = toy.build(tmp_path, steps=0).run(resume=True)
    assert result.metrics["AP"] < 0


def test_checkpoints_by_minutes(toy: ModuleType, tmp_path: Path) -> None:
    for minutes, expected in ((None, [8]), (1e-9, list(range(1, 9))), (60.0, [8])):
        folder = tmp_path / str(minutes)
        toy.build(folder, steps=8, checkpoint_every=None, checkpoint_minutes=minutes, max_keep_ckpts=20).run()
        assert [int(path.stem[5:]) for path in sorted(folder.glob("step_*.pt"))] == expected


def test_sigterm_is_ctrl_c_for_every_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def busy(*_: Any, **__: Any) -> None:
        send(signal.SIGTERM)
        time.sleep(20)

    monkeypatch.setattr("tldet.workflows.merge.merge.merge", busy)
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    assert main(["merge", "a.json", "b.json", "--out", str(tmp_path / "m")]) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before
    assert signals.SAME_REQUEST == 0.5
