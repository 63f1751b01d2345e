"""Running out of memory: one line, or smaller micro-batches with the same result."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from tests.tools import same
from tldet import checkpoint
from tldet.cli.main import main
from tldet.engine.distributed import World
from tldet.engine.loop import _optimize, take_in_parts
from tldet.engine.precision import Precision
from tldet.engine.step import Stepper
from tldet.errors import ConfigError, DataError, TrainingError
from tldet.structures.batch import Batch
from tldet.structures.target import Target
from tldet.system.out_of_memory import OutOfMemoryError, Smaller, StepRetry, is_out_of_memory, split_batch

from .conftest import Die, DieAt, assert_same_run

CPU = torch.device("cpu")


def full() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ...")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (full(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: device-side assert triggered"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_recognized(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


class Limited(nn.Module):
    """A model whose device holds only so many images at a time."""

    def __init__(self, model: nn.Module, most: int, fails_in: str = "forward") -> None:
        super().__init__()
        self.model, self.most, self.fails_in, self.sizes = model, most, fails_in, list[int]()

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        self.sizes.append(len(batch.labels))
        if self.fails_in == "forward" and len(batch.labels) > self.most:
            raise full()
        losses: dict[str, torch.Tensor] = self.model(batch)
        if len(batch.labels) > self.most:
            losses["loss_cls"].register_hook(self._fail)
        return losses

    def _fail(self, _: torch.Tensor) -> None:
        raise full()

    def logits(self, *given: Any) -> Any:
        return self.model.logits(*given)


def test_out_of_memory_is_a_one_line_error_and_earlier_steps_are_saved(toy: ModuleType, tmp_path: Path) -> None:
    model = Limited(toy.ToyModel(), 6)
    trainer = toy.build(tmp_path, model=model, hooks=[Shrinking(model, 7, 3)])
    with pytest.raises(TrainingError) as caught:
        trainer.run()
    line = str(caught.value)
    assert "\n" not in line
    for part in (
        "step 8: out of memory on cpu: batch size 6, images 8x8",
        "data.loader.batch_size=3",
        "--on-oom reduce",
    ):
        assert part in line
    assert "the run is saved after step 7" in line
    model.most = 6
    assert toy.build(tmp_path, model=model).run(resume=True).step == 40


class Shrinking(DieAt):
    """A hook after which less memory is left."""

    def __init__(self, model: Limited, step: int, most: int) -> None:
        super().__init__(step)
        self.model, self.most = model, most

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any, outputs: Any) -> None:
        if batch_idx + 1 == self.step:
            self.model.most = self.most


@pytest.mark.parametrize("fails_in", ["forward", "backward"])
def test_reduced_steps_continue_and_resume_bit_identically(
    toy: ModuleType, tmp_path: Path, fails_in: str, caplog: pytest.LogCaptureFixture
) -> None:
    def run(name: str, *hooks: Any, most: int = 6, resume: bool = False) -> list[int]:
        torch.manual_seed(0)
        model = Limited(toy.ToyModel(), most, fails_in)
        shrinking = [] if resume else [Shrinking(model, 2, 2)]
        toy.build(tmp_path / name, model=model, on_oom="reduce", epochs=2, hooks=[*shrinking, *hooks]).run(
            resume=resume
        )
        return model.sizes

    sizes = run("whole")
    assert sizes[:5] == [6, 6, 6, 6, 6]
    assert sizes[5:12] == [3, 1, 2, 1, 2, 1, 2] if fails_in == "forward" else [3]
    assert sizes[-8:] == [1, 2, 1, 2, 1, 2, 1, 2]
    assert (
        "out of memory on cpu: batch size 6, images 8x8 (height x width, padded); halving the micro-batch"
        in caplog.text
    )
    assert checkpoint.load_checkpoint(tmp_path / "whole" / "step_00000010.pt")["training"]["split"] == 4
    with pytest.raises(Die):
        run("cut", DieAt(step=7))
    assert max(run("cut", most=2, resume=True)) == 2, "a resumed run starts with what fitted"
    ours, theirs = (checkpoint.load_checkpoint(tmp_path / name / "step_00000010.pt") for name in ("whole", "cut"))
    for state in (ours, theirs):
        del state["training"]["seconds"]
    assert [key for key in ours if not same(ours[key], theirs[key])] == []


class Plain(nn.Module):
    """A model without any draw, whose loss is a mean over images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(1, 8, 3), nn.Linear(8, 4)

    def forward(self, batch: Any) -> dict[str, torch.Tensor]:
        logits = self.fc(self.conv(batch.images).relu().mean((2, 3)))
        return {"loss_cls": nn.functional.cross_entropy(logits, batch.labels)}


def test_a_reduced_step_is_the_step(toy: ModuleType) -> None:
    batches = [next(toy.toy_batches(n)) for n in (0, 1)]
    models = [Plain() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    results = []
    for model, most in zip(models, (6, 2), strict=True):
        limited = Limited(model, most)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        memory = StepRetry(limited, optimizer, reduce=True)
        results.append(take_in_parts(memory, Stepper(limited, optimizer, Precision()), batches, 1))
    assert [parts for _, parts in results] == [1, 4]
    assert results[0][0].loss == pytest.approx(results[1][0].loss, rel=1e-6)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_statistics_of_norms_are_put_back_before_a_step_is_taken_again(toy: ModuleType) -> None:
    model = toy.ToyModel()
    memory = StepRetry(model, torch.optim.SGD(model.parameters(), lr=0.5), reduce=True)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    seen: list[int] = []

    def step(batches: list[Any]) -> int:
        assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
        seen.append(len(batches))
        for batch in batches:
            model(batch)
        if len(batches) < 4:
            raise full()
        return len(batches)

    assert take_in_parts(memory, step, [next(toy.toy_batches(0))], 1) == (4, 4)
    assert seen == [1, 2, 4]


def test_a_micro_batch_of_one_cannot_be_reduced(toy: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"step 1: .* batch size 1, .*; use smaller images .*; no step was taken"):
        toy.build(tmp_path / "one", model=Limited(toy.ToyModel(), 0), on_oom="reduce").run()
    model = toy.ToyModel()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    memory = StepRetry(model, optimizer, reduce=True)

    def half_done(batches: list[Any]) -> None:
        model(batches[0])["loss_cls"].backward()
        optimizer.step()
        raise full()

    with pytest.raises(OutOfMemoryError, match="the optimizer state does not fit") as caught:
        take_in_parts(memory, half_done, [next(toy.toy_batches(0))], 1)
    assert not caught.value.whole, "some weights are updated, others are not"
    with pytest.raises(ConfigError, match=r"training.on_oom='reduce': .* one process"):
        toy.build(tmp_path / "two", on_oom="reduce", world=World(0, 2))
    with pytest.raises(ConfigError, match=r"training\.on_oom must be one of error, reduce, not 'retry'"):
        toy.build(tmp_path / "none", on_oom="retry")


def test_a_programming_error_is_none_of_memory(toy: ModuleType, tmp_path: Path) -> None:
    class Broken(Limited):
        def forward(self, batch: Any) -> dict[str, torch.Tensor]:
            raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        toy.build(tmp_path, model=Broken(toy.ToyModel(), 6), on_oom="reduce").run()


def test_batches_are_divided_with_all_that_belongs_to_their_images() -> None:
    targets = [Target(torch.full((1, 4), float(n)), torch.zeros(1, dtype=torch.int64), image_id=n) for n in range(5)]
    images = torch.arange(5.0).reshape(5, 1, 1, 1).expand(5, 3, 4, 6).contiguous(memory_format=torch.channels_last)
    batch = Batch(images, [(4, 6 - n % 2) for n in range(5)], targets, [(40 + n, 60) for n in range(5)], seed=9)
    parts = split_batch(batch, 2)
    assert [part.image_ids for part in parts] == [[0, 1], [2, 3, 4]]
    assert [part.images[:, 0, 0, 0].tolist() for part in parts] == [[0, 1], [2, 3, 4]]
    assert parts[1].sizes == [(4, 6), (4, 5), (4, 6)]
    assert [size[0] for size in parts[1].original_sizes] == [42, 43, 44]
    assert {part.seed for part in parts} == {9}
    assert split_batch(batch, 1) == [batch]
    assert [part.image_ids for part in split_batch(batch, 8)] == [[0], [1], [2], [3], [4]]


def test_an_evaluation_continues_with_smaller_batches(toy: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    smaller, sizes = Smaller(), list[int]()

    def predict(batch: Any) -> list[int]:
        sizes.append(len(batch.labels))
        if len(batch.labels) > 2:
            raise full()
        return list(batch.image_ids)

    for number in range(2):
        found = smaller(predict, next(toy.toy_batches(number)), CPU)
        assert [one for _, ids in found for one in ids] == list(range(6 * number, 6 * number + 6))
    assert sizes == [6, 3, 1, 2, 1, 2, 1, 2, 1, 2], "what did not fit is not tried again"
    assert caplog.text.count("out of memory") == 2
    with pytest.raises(OutOfMemoryError, match=r"in evaluation: batch size 1, images 8x8"):
        Smaller()(lambda batch: (_ for _ in ()).throw(full()), next(toy.toy_batches(0)), CPU)


def test_a_validation_that_does_not_fit_saves_the_run(toy: ModuleType, tmp_path: Path) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        raise OutOfMemoryError("out of memory on cpu in evaluation", whole=True)

    with pytest.raises(TrainingError, match="out of memory on cpu in evaluation; the run is saved after step 5"):
        toy.build(tmp_path, evaluate=evaluate).run()
    assert toy.build(tmp_path).run(resume=True).step == 40


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: not enough memory: you tried")])
def test_validation_images_that_do_not_fit_lose_no_step(
    toy: ModuleType, whole: Path, tmp_path: Path, error: Exception
) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        if trainer.state.step == 25:
            raise error
        result: dict[str, float] = toy.evaluate(model)
        return result

    trainer = toy.build(tmp_path, evaluate=evaluate, checkpoint_every=None)
    with pytest.raises(TrainingError, match=r"out of memory in validation: .*eval_batch_size; .* saved after step 25;"):
        trainer.run()
    assert trainer.model.training
    assert toy.build(tmp_path).run(resume=True).step == 40
    assert_same_run(whole, tmp_path)


def test_a_programming_error_in_validation_keeps_its_traceback(toy: ModuleType, tmp_path: Path) -> None:
    def evaluate(model: Any) -> dict[str, float]:
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        toy.build(tmp_path, evaluate=evaluate).run()


def test_the_error_reaches_other_processes() -> None:
    error = OutOfMemoryError("out of memory on cuda:0", whole=False)
    sent = pickle.loads(pickle.dumps(error))
    assert (type(sent), str(sent), sent.whole) == (OutOfMemoryError, str(error), False)


def test_a_process_that_does_not_save_does_not_report_saving(
    toy: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*_: Any) -> None:
        raise full()

    trainer = toy.build(tmp_path)
    trainer.state.step, trainer.world = 3, World(1, 2)
    monkeypatch.setattr(trainer, "stepper", hungry)
    with pytest.raises(
        TrainingError, match=r"step 4: out of memory on cpu: .*; in process 1; resume with --resume from the"
    ):
        _optimize(trainer, [next(toy.toy_batches(0))], 1, list)
    assert not list(tmp_path.glob("step_*"))


@pytest.mark.parametrize("on_oom", ["error", "reduce"])
def test_images_that_cannot_be_loaded_are_not_left_out(toy: ModuleType, tmp_path: Path, on_oom: str) -> None:
    def batches(start: int) -> Iterator[Any]:
        for number, batch in enumerate(toy.toy_batches(start), start):
            if number == 7:
                raise MemoryError
            yield batch

    with pytest.raises(DataError, match=r"loading the images of step 4: .*--batch-size; the run is saved after step 3"):
        toy.build(tmp_path, batches=batches, on_oom=on_oom).run()
    assert toy.build(tmp_path).run(resume=True).step == 40


def test_elsewhere_it_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def hungry(*_: Any, **__: Any) -> None:
        raise full()

    monkeypatch.setattr("tldet.workflows.merge.merge.merge", hungry)
    assert main(["merge", "a.json", "b.json", "--out", str(tmp_path / "m")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tldet merge: error: out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.)")
