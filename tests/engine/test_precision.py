"""The choice of precision; bf16 is never run here, only chosen."""

import io
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from tldet.engine import precision
from tldet.engine.callbacks import StopFile, WeightsSnapshot, by_priority
from tldet.engine.precision import Precision, choose
from tldet.engine.progress import ConsoleReporter, duration
from tldet.errors import ConfigError, DataError
from tldet.models.ops.rewriting import Rewritten
from tldet.models.timing import timing_key
from tldet.system import device

_MEASURE = precision.measure_precisions  # imported before the fixtures of all tests replace it


@pytest.fixture(autouse=True)
def _measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "measure_precisions", _MEASURE)


def test_cpu_without_bf16_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: False)
    chosen = choose(nn.Linear(1, 1), "cpu", trial=lambda: pytest.fail("was run"))
    assert (chosen.name, chosen.channels_last) == ("fp32", True)
    assert chosen.describe() == "device cpu, precision fp32, channels_last (no bf16 instructions)"
    with pytest.raises(ConfigError, match="no bf16 instructions"):
        choose(nn.Linear(1, 1), "cpu", "bf16")


@pytest.mark.parametrize(("fast", "expected"), [("fp32", "fp32"), ("bf16", "bf16")])
def test_cpu_with_bf16_is_timed_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fast: str, expected: str) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(precision, "step_seconds", lambda one, model, trial: 1.0 if one.name == fast else 2.0)
    model = nn.Conv2d(3, 3, 1)
    first = choose(model, "cpu", trial=lambda: None, work="small")
    assert first.name == expected
    assert choose(model, "cpu").reason == "bf16 not measured"
    again = choose(model, "cpu", trial=lambda: pytest.fail("was run"), work="small")
    assert (again.name, again.reason) == (expected, f"{first.reason}; cached")
    monkeypatch.setattr(precision, "step_seconds", lambda one, model, trial: trial())
    with pytest.raises(pytest.fail.Exception, match="was run"):
        choose(model, "cpu", trial=lambda: pytest.fail("was run"), work="large")


def test_trial_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    monkeypatch.setattr(Precision, "autocast", lambda self: torch.autocast("cpu", enabled=False))
    rng = torch.get_rng_state()
    choose(model, "cpu", trial=lambda: model(torch.randn(2, 3, 4, 4)).sum())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(rng, torch.get_rng_state())


def depthwise() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 5, stride=2, padding=2, groups=4))


def loss_of(model: nn.Module) -> torch.Tensor:
    result: torch.Tensor = model(torch.randn(2, 3, 9, 9)).square().sum()
    return result


def test_depthwise_kernels_are_timed_once_and_picked_for_each_precision(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    timed: list[tuple[str, list[str]]] = []

    def faster(calls: dict[str, Any], dtype: torch.dtype) -> dict[str, list[str]]:
        timed.append((str(dtype), list(calls)))
        return {"1": ["input", "weight"]} if dtype == torch.bfloat16 else {}

    def seconds(one: Precision, model: nn.Module, trial: Any) -> float:
        assert [isinstance(m, Rewritten) for m in model.modules()] == [False, False, one.name == "bf16"]
        return {"fp32": 2.0, "bf16": 1.0}[one.name]

    monkeypatch.setattr(precision, "faster_parts", faster)
    monkeypatch.setattr(precision, "step_seconds", seconds)
    model = depthwise()
    first = choose(model, "cpu", trial=lambda: loss_of(model))
    assert (first.name, first.rewrites) == ("bf16", {"1": ["input", "weight"]})
    assert "1 depthwise convolution with a rewritten backward pass" in first.describe()
    assert [type(m) for m in model] == [nn.Conv2d, nn.Conv2d]
    again = choose(model, "cpu", trial=lambda: pytest.fail("was run"))
    assert (again.name, again.rewrites) == ("bf16", first.rewrites)
    assert timed == [("torch.float32", ["1"]), ("torch.bfloat16", ["1"])]
    assert choose(model, "cpu", "fp32", lambda: loss_of(model)).rewrites == {}
    assert choose(model, "cpu", "bf16", lambda: loss_of(model)).rewrites == first.rewrites
    assert choose(model.eval(), "cpu", "bf16", lambda: pytest.fail("was run")).rewrites == {}
    assert isinstance(first.prepare(model)[1], Rewritten)
    assert type(Precision().prepare(model)[1]) is nn.Conv2d


@pytest.mark.parametrize(("requested", "states"), [("fp16", "needs a CUDA GPU"), ("tf32", "must be auto, fp32, bf16")])
def test_impossible_request(requested: str, states: str) -> None:
    with pytest.raises(ConfigError, match=states):
        choose(nn.Linear(1, 1), "cpu", requested)


def test_prepare_keeps_the_parameters(toy: ModuleType) -> None:
    model = toy.ToyModel()
    before = list(model.parameters())
    Precision().prepare(model)
    assert all(a is b for a, b in zip(before, model.parameters(), strict=True))
    assert (
        nn.Conv2d(2, 2, 3).to(memory_format=torch.channels_last).weight.is_contiguous(memory_format=torch.channels_last)
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_on_a_console(toy: ModuleType, tmp_path: Path, terminal: bool) -> None:
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=200, _environ={})
    toy.build(tmp_path, steps=10, reporter=ConsoleReporter(console)).run()
    text = out.getvalue()
    assert "step 10/10  loss" in text
    assert "images/s  eta 0:00" in text
    assert "validation at step 5: AP -" in text
    assert text.count("step 3/10") == 0 or terminal


def test_duration() -> None:
    assert [duration(s) for s in (0, 61.4, 3725)] == ["0:00", "1:01", "1:02:05"]


def test_stop_file_ends_like_ctrl_c_and_is_removed(toy: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "STOP").touch()
    result = toy.build(tmp_path, hooks=[StopFile()]).run()
    assert (result.step, result.reason) == (1, f"{tmp_path / 'STOP'} appeared")
    assert toy.build(tmp_path, steps=5, hooks=[StopFile()]).run(resume=True).step == 5


def test_snapshots_and_order_of_hooks(toy: ModuleType, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    trainer = toy.build(tmp_path, steps=12, hooks=[WeightsSnapshot(every=1.0)])
    trainer.run()
    files = sorted((tmp_path / "snapshots").iterdir())
    assert [file.name for file in files] == ["weights_00000005.safetensors", "weights_00000010.safetensors"]
    assert set(load_file(files[-1])) == set(trainer.model.state_dict())
    (tmp_path / "file").touch()
    trainer.work_dir = tmp_path / "file"
    with pytest.raises(DataError, match=r"file/snapshots: cannot be created"):
        WeightsSnapshot(every=1.0).after_train_iter(trainer, 4)
    first: Any = StopFile()
    first.priority = "HIGH"
    last = WeightsSnapshot()
    assert by_priority([last, first]) == [first, last]
    with pytest.raises(ConfigError, match=r"WeightsSnapshot.every"):
        WeightsSnapshot(every=0)


@pytest.mark.parametrize(
    ("bf16", "turns", "expected"),
    [
        ([0.6, 0.6, 0.6], 3, "bf16"),
        ([2.0, 2.0, 2.0], 3, "fp32"),
        ([1.6, 1.2, 0.6, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6], 9, "bf16"),
        ([0.3, 0.4, 1.5, 1.5, 1.6, 0.7, 1.4, 0.2, 1.1], 9, "fp32"),
    ],
)
def test_precisions_are_timed_in_turns_until_the_difference_is_clear(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, bf16: list[float], turns: int, expected: str
) -> None:
    """A pass that something else slowed down must not decide."""
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    order: list[str] = []

    def seconds(one: Precision, *_: object) -> float:
        order.append(one.name)
        return 1.0 if one.name == "fp32" else bf16[order.count("bf16") - 1]

    monkeypatch.setattr(precision, "step_seconds", seconds)
    assert choose(nn.Conv2d(3, 3, 1), "cpu", trial=lambda: None).name == expected
    assert order == ["fp32", "bf16"] * turns


@pytest.mark.parametrize("name", ["meta", "xpu", "vulkan", "hpu", "cud", "gpu", "cpu:x", ""])
def test_a_device_of_another_type_is_refused_by_name(name: str) -> None:
    with pytest.raises(ConfigError, match=f"^device {name}: must be auto, cpu, cuda, cuda:N or mps$"):
        device.pick_device(name)


def test_a_number_is_taken_for_that_of_a_gpu() -> None:
    with pytest.raises(ConfigError, match=r"^device 0: must be auto, .* or mps; did you mean cuda:0\?$"):
        device.pick_device("0")


def test_a_gpu_that_cannot_compute_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def too_old(device: torch.device) -> None:
        if device.type == "cuda":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "_try_out", too_old)
    assert device.pick_device() == torch.device("cpu")
    assert "the GPU is not used: CUDA error: no kernel image is available" in caplog.text
    with pytest.raises(ConfigError, match=r"^device cuda:1: CUDA error: no kernel image .* on the device$"):
        device.pick_device("cuda:1")


def test_bf16_support_is_that_of_the_device_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.index = device.index or 0

        def __enter__(self) -> None:
            used.append(self.index)

        def __exit__(self, *_: object) -> None:
            used.pop()

    monkeypatch.setattr(torch.cuda, "device", Device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: used[-1] == 1)
    model = nn.Linear(1, 1)
    assert [choose(model, name).name for name in ("cuda:0", "cuda:1", "cuda")] == ["fp16", "bf16", "fp16"]
    assert choose(model, "cuda:1", "bf16").name == "bf16"
    with pytest.raises(ConfigError, match="this GPU has no bf16"):
        choose(model, "cuda:0", "bf16")


def test_the_choice_is_that_of_the_type_of_processor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Machines of one type share timings: clock, microcode and core count are not part of the type."""
    first = "processor\t: 0\nmodel name\t: X\nmicrocode: 0x1\ncpu MHz: 2000.1\ncore id: 0\nflags: avx512_bf16\n"
    other = first.replace("0x1", "0x2").replace("2000.1", "3100").replace("core id: 0", "core id: 5")
    keys = []
    for text in (first, other, first.replace(": X", ": Y")):
        (tmp_path / "cpuinfo").write_text(f"{text}\n{text}")
        monkeypatch.setattr(device, "CPUINFO", tmp_path / "cpuinfo")
        keys.append(timing_key(nn.Linear(1, 1), ""))
        assert device.cpu_has_bf16()
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize(("ratio", "expected"), [(0.57, "bf16"), (1.1, "fp32")])
def test_load_that_comes_and_goes_does_not_decide(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ratio: float, expected: str
) -> None:
    """Another process makes passes four times as slow; it starts or ends after every fourth pass on average."""
    monkeypatch.setenv("TLDET_CACHE", str(tmp_path))
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    random, slow = np.random.default_rng(0), False

    def seconds(one: Precision, *_: object) -> float:
        nonlocal slow
        slow ^= bool(random.random() < 0.25)
        return (1.0 if one.name == "fp32" else ratio) * (4 if slow else 1)

    monkeypatch.setattr(precision, "step_seconds", seconds)
    names = [choose(nn.Conv2d(3, 3, 1), "cpu", trial=lambda: None, work=str(n)).name for n in range(200)]
    assert names.count(expected) >= 198
