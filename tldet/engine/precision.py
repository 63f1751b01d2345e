"""Precision, memory layout and compilation, chosen once from the capabilities of the CPU or GPU and short measurements.

Every entry point (training, testing, predicting) goes through :func:`choose`. ``training.compile`` runs the parts of a
model through ``torch.compile`` if that is measured to be faster.
"""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from tldet.engine.state import deterministic
from tldet.errors import ConfigError
from tldet.models.cosine import CosineClassifier
from tldet.models.ops.depthwise import Gradient
from tldet.models.ops.rewriting import depthwise_calls, faster_parts, has_depthwise, rewrite
from tldet.system.cache import remembered

log = logging.getLogger(__name__)
Name = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Rewrites = Mapping[str, Sequence[Gradient]]  # module name -> gradients to rewrite
_M = TypeVar("_M", bound=nn.Module)
USER_SPECIFIED = "user-specified"  # reason of a precision
_WORTH_IT = 0.9  # bf16 must take less than this share of fp32's time
CPUINFO = Path("/proc/cpuinfo")
# Properties of one machine, not of a type of processor, in /proc/cpuinfo
INDIVIDUAL = (
    "processor", "cpu mhz", "bogomips", "microcode", "physical id", "siblings", "core id", "cpu cores", "apicid",
    "initial apicid",
)  # fmt: skip
AGREE, TURNS = 3, 9  # least and largest number of times that each precision is measured
_NEAR = 1.25  # AGREE times are enough if all differ from ``_WORTH_IT`` by this factor, in the same direction
COMPILE_WORTH_IT = 0.95  # a compiled step must take less than this share of the other's time
COMPILE_FAULTS = (RuntimeError, OSError)  # no compiler, or a model it cannot take


@dataclass(frozen=True)
class Precision:
    """Precision and memory layout.

    Attributes:
        name: ``fp32``, ``bf16`` or ``fp16``; weights stay fp32; bf16 and fp16 use autocast.
        device_type: ``cpu``, ``cuda``, ...
        channels_last: store images and convolution weights in channels-last memory (almost always faster).
        reason: reason of the choice, for the log.
        rewrites: gradients computed by :mod:`tldet.models.ops.depthwise`, where it is faster than torch.
    """

    name: Name = "fp32"
    device_type: str = "cpu"
    channels_last: bool = True
    reason: str = "default"
    rewrites: Rewrites = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """The number format of matrix products and convolutions."""
        return _DTYPES[self.name]

    def autocast(self) -> AbstractContextManager[Any]:
        """A context for forward passes."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps small fp16 gradients from vanishing; does nothing with the other formats."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")

    def prepare(self, model: _M) -> _M:
        """Set the memory layout and the backward kernels of a model; its parameters stay the same objects."""
        rewrite(model, self.rewrites)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def store_weights(self, model: _M) -> _M:
        """Keep the weights of convolutions and matrix products in the number format they are multiplied in.

        Only for prediction under :meth:`autocast`, which would cast them anew in every pass: the results are the same.
        The weights of a cosine classifier stay in fp32, since it computes in fp32.
        The parameters are other objects afterwards.
        """
        for module in model.modules():
            if self.name != "fp32" and _casts_weights(module):
                for name, weight in list(module.named_parameters(recurse=False)):
                    setattr(module, name, nn.Parameter(weight.detach().to(self.dtype), requires_grad=False))
        return model

    def describe(self) -> str:
        """One line for people."""
        layout = ", channels last" if self.channels_last else ""
        if self.rewrites:
            layout += f", {len(self.rewrites)} depthwise convolutions with a rewritten backward pass"
        return f"{self.name} on {self.device_type}{layout} ({self.reason})"


def _casts_weights(module: nn.Module) -> bool:
    """Return True if autocast casts the weights of a module."""
    return isinstance(module, (nn.Conv2d, nn.Linear)) and not isinstance(module, CosineClassifier)


def choose(
    model: nn.Module,
    device: torch.device | str,
    requested: str = "auto",
    trial: Callable[[], Any] | None = None,
    work: str = "",
) -> Precision:
    """Choose the precision of ``model`` on ``device``.

    Args:
        model: the model.
        device: the device.
        requested: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
        trial: runs one forward pass (and returns the loss, for training). With a trial, fp32 and bf16 are timed on a
            CPU with bf16 instructions; without a trial, such a CPU uses fp32. For a model in training mode on CPU,
            the backward kernels of depthwise convolutions are timed too. The model is not changed. Results are cached
            (:mod:`tldet.system.cache`) for this processor and this model, so that the same run always computes the same
            way.
        work: further properties that times depend on, such as the image size.

    Raises:
        ConfigError: the device does not support the requested precision.
    """
    device = torch.device(device)
    kind = device.type
    if requested != "auto":
        name = _check(requested, device)
        return Precision(name, kind, True, USER_SPECIFIED, _rewrites(model, kind, [name], trial, work).get(name, {}))
    if kind == "cuda":
        if gpu_has_bf16(device):
            return Precision("bf16", kind, reason="the GPU computes in bf16")
        return Precision("fp16", kind, reason="the GPU has no bf16")
    if kind != "cpu":
        return Precision("fp32", kind, reason="safe on this device")
    has_bf16 = cpu_has_bf16()
    rewritten = _rewrites(model, kind, ["fp32", "bf16"] if has_bf16 else ["fp32"], trial, work)
    if not has_bf16 or trial is None:
        why = "bf16 was not measured" if has_bf16 else "the processor has no bf16 instructions"
        return Precision("fp32", kind, True, why, rewritten.get("fp32", {}))
    key = timing_key(model, f"{work} {rewritten}" if rewritten else work)
    seconds, known = remembered("precision", key, lambda: _measure(model, trial, rewritten))
    name = "bf16" if seconds["bf16"] < _WORTH_IT * seconds["fp32"] else "fp32"
    when = "; cached" if known else ""
    when += ", difference too small for bf16" if name == "fp32" and seconds["bf16"] < seconds["fp32"] else ""
    reason = f"step time: fp32 {seconds['fp32']:.3f} s, bf16 {seconds['bf16']:.3f} s{when}"
    return Precision(name, kind, reason=reason, rewrites=rewritten.get(name, {}))


def _rewrites(
    model: nn.Module, kind: str, names: Sequence[Name], trial: Callable[[], Any] | None, work: str
) -> dict[str, Rewrites]:
    """Measure the ``rewrites`` of a :class:`Precision` for each name; empty if nothing can be rewritten."""
    if kind != "cpu" or trial is None or not model.training or not has_depthwise(model):
        return {}

    def measure() -> dict[str, Rewrites]:
        with undisturbed(Precision().prepare(model)):
            calls = depthwise_calls(model, trial)
            return {name: faster_parts(calls, _DTYPES[name]) for name in names}

    return cast("dict[str, Rewrites]", remembered("depthwise", timing_key(model, f"{work} {names}"), measure)[0])


def _processor() -> str:
    """Describe the type of the first processor with its flags, as Linux reports it; empty elsewhere."""
    try:
        first = CPUINFO.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if not line.lower().startswith(INDIVIDUAL))


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies in bf16; where it does not, bf16 is hundreds of times slower than fp32."""
    flags = set(_processor().split())
    if not flags:
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(probe()) if probe else False
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def gpu_has_bf16(device: torch.device) -> bool:
    """Whether a CUDA device, not just the current one, computes in bf16 without emulation."""
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _check(requested: str, device: torch.device) -> Name:
    kind = device.type
    asked = f"precision {requested!r} (training.precision, --precision)"
    if requested not in _DTYPES:
        raise ConfigError(f"{asked}: must be auto, {', '.join(_DTYPES)}")
    if requested == "fp16" and kind != "cuda":
        raise ConfigError(f"{asked}: needs a CUDA GPU; use 'auto'")
    if requested == "bf16" and kind == "cpu" and not cpu_has_bf16():
        raise ConfigError(f"{asked}: this processor has no bf16 instructions; use 'auto'")
    if requested == "bf16" and kind == "cuda" and not gpu_has_bf16(device):
        raise ConfigError(f"{asked}: this GPU has no bf16; use 'auto'")
    return requested  # type: ignore[return-value]


def timing_key(model: nn.Module, work: str) -> str:
    """Everything that decides how long a pass takes."""
    layers = [(name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters()]
    kinds = sorted(Counter(type(module).__name__ for module in model.modules()).items())
    device = next(model.parameters()).device
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    machine = (platform.machine(), _processor(), torch.get_num_threads(), str(torch.__version__), device.type, gpu)
    return repr((machine, kinds, model.training, layers, work))


def _measure(model: nn.Module, trial: Callable[[], Any], rewritten: Mapping[str, Rewrites]) -> dict[str, float]:
    """Measure the seconds of a pass in fp32 and in bf16.

    Other processes may slow down any pass, so both are measured in turns and compared within each turn: the median of
    the ratios decides, and the choice is the same on every machine of a type.
    """
    formats = [Precision(name, rewrites=rewritten.get(name, {})) for name in ("fp32", "bf16")]
    plain: list[float] = []
    ratios: list[float] = []
    with undisturbed(model):
        while len(ratios) < TURNS:
            fp32, bf16 = (pass_seconds(one, one.prepare(model), trial) for one in formats)
            plain.append(fp32)
            ratios.append(bf16 / fp32)
            clear = max(ratios) < _WORTH_IT / _NEAR or min(ratios) > _WORTH_IT * _NEAR
            if clear and len(ratios) >= AGREE:
                break
    rewrite(model, {})
    seconds = median(plain)
    return {"fp32": seconds, "bf16": seconds * median(ratios)}


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Leave the model's statistics and the random numbers as they were before."""
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    device = next(model.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
    with torch.no_grad():
        for buffer, before in buffers:
            buffer.copy_(before)


def pass_seconds(precision: Precision, model: nn.Module, trial: Callable[[], Any]) -> float:
    """Seconds of a forward pass, and of the backward pass of a loss it returns; the first run does not count."""
    best, device = float("inf"), next(model.parameters()).device
    for run in range(3):
        _wait(device)
        start = time.perf_counter()
        with precision.autocast():
            out = trial()
        if isinstance(out, torch.Tensor) and out.requires_grad:
            torch.autograd.backward(out.sum())
        _wait(device)
        model.zero_grad(set_to_none=True)
        if run:
            best = min(best, time.perf_counter() - start)
    return best


def _wait(device: torch.device) -> None:
    """For what a GPU was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_compiled(
    model: nn.Module, trial: Callable[[], Any], precision: Precision, work: str
) -> tuple[dict[str, Any], bool]:
    """Time a pass forward and backward as written and compiled; the model is left as it was.

    Args:
        model: its children (backbone, pyramid, head) are compiled one by one.
        trial: runs it as it will be trained and returns the loss; see :func:`~tldet.engine.precision.choose`.
        precision: what it computes in.
        work: what else the times depend on.

    Returns:
        For :func:`compile_where_it_pays`. It is kept (:mod:`tldet.system.cache`), so that a resumed run computes in the
        same way.
    """
    key = repr((timing_key(model, work), precision.name, *sorted(precision.rewrites)))
    return remembered("compile", key, lambda: _measure_both(model, trial, precision))


def compile_where_it_pays(model: nn.Module, measured: tuple[dict[str, Any], bool]) -> str:
    """Compile the parts if that was faster; returns what was chosen and why, for the log."""
    seconds, known = measured
    when = " at an earlier time" if known else ""
    if "failed" in seconds:
        return f"not compiled: torch.compile failed{when}: {seconds['failed']}"
    told = f"measured {seconds['eager']:.2f} s as written, {seconds['compiled']:.2f} s compiled{when}"
    if seconds["compiled"] >= COMPILE_WORTH_IT * seconds["eager"]:
        return f"not compiled: {told}"
    _compile(model)
    return f"compiled: {told}"


@contextmanager
def as_written(model: nn.Module) -> Iterator[None]:
    """The parts of a model without their compiled forms for a while: another mode would be compiled anew."""
    compiled = {part: part._compiled_call_impl for part in model.children()}
    _forget(model)
    try:
        yield
    finally:
        for part, call in compiled.items():
            part._compiled_call_impl = call


def _measure_both(model: nn.Module, trial: Callable[[], Any], precision: Precision) -> dict[str, Any]:
    log.info("measuring torch.compile, which takes a minute or two; the answer is kept for the next run")
    precision.prepare(model)
    found: dict[str, Any] = {}
    with deterministic(next(model.parameters()).device), undisturbed(model):
        found["eager"] = pass_seconds(precision, model, trial)
        try:
            _compile(model)
            found["compiled"] = pass_seconds(precision, model, trial)
        except COMPILE_FAULTS as error:
            found["failed"] = (str(error).splitlines() or [type(error).__name__])[0]
        finally:
            _forget(model)
            model.zero_grad(set_to_none=True)
    return found


def _compile(model: nn.Module) -> None:
    for part in model.children():
        part.compile()


def _forget(model: nn.Module) -> None:
    for part in model.children():
        part._compiled_call_impl = None
