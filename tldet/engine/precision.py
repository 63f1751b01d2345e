"""Precision and memory layout, chosen once from the capabilities of the CPU or GPU and short measurements.

Training, testing and prediction all use :func:`choose`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any, Literal, TypeVar, cast

import torch
from torch import nn

from tldet.errors import ConfigError
from tldet.models.compiling import compare_compiled
from tldet.models.cosine import CosineClassifier
from tldet.models.ops.depthwise import Gradient
from tldet.models.ops.rewriting import depthwise_calls, faster_parts, has_depthwise, rewrite
from tldet.models.timing import pass_seconds, timing_key, undisturbed
from tldet.system.cache import remembered
from tldet.system.device import cpu_has_bf16, gpu_has_bf16
from tldet.text import counted

Name = Literal["fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Rewrites = Mapping[str, Sequence[Gradient]]  # module name -> gradients to rewrite
_M = TypeVar("_M", bound=nn.Module)
USER_SPECIFIED = "user-specified"  # reason of a precision
_WORTH_IT = 0.9  # bf16 must take less than this fraction of the time of fp32
_LEAST_TURNS, _MOST_TURNS = 3, 9  # number of times that each precision is measured
_NEAR = 1.25  # _LEAST_TURNS are enough if all ratios differ from _WORTH_IT by this factor, in the same direction


@dataclass(frozen=True)
class Precision:
    """Precision and memory layout.

    Attributes:
        name: ``fp32``, ``bf16`` or ``fp16``; weights stay fp32; bf16 and fp16 use autocast.
        device_type: ``cpu``, ``cuda``, ...
        channels_last: store images and convolution weights in channels-last memory (almost always faster).
        reason: reason of the choice, for the log.
        rewrites: gradients computed by :mod:`tldet.models.ops.depthwise`, if that is faster than torch.
    """

    name: Name = "fp32"
    device_type: str = "cpu"
    channels_last: bool = True
    reason: str = "default"
    rewrites: Rewrites = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of matrix products and convolutions."""
        return _DTYPES[self.name]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context of forward passes."""
        if self.name == "fp32":
            return nullcontext()
        return torch.autocast(self.device_type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Return a gradient scaler, which is disabled unless the precision is fp16."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name == "fp16")

    def prepare(self, model: _M) -> _M:
        """Set the memory layout and the backward kernels of a model; its parameters stay the same objects."""
        rewrite(model, self.rewrites)
        return model.to(memory_format=torch.channels_last) if self.channels_last else model

    def store_weights(self, model: _M) -> _M:
        """Convert the weights of convolutions and linear layers to :attr:`dtype`; the parameters become other objects.

        Only for prediction under :meth:`autocast`, which would cast them again in every pass; the results are the same.
        A cosine classifier computes in fp32, so its weights stay in fp32.
        """
        for module in model.modules():
            if self.name != "fp32" and _casts_weights(module):
                for name, weight in list(module.named_parameters(recurse=False)):
                    setattr(module, name, nn.Parameter(weight.detach().to(self.dtype), requires_grad=False))
        return model

    def describe(self) -> str:
        """Return device, precision, memory layout and the reason of the choice in one line."""
        layout = ", channels_last" if self.channels_last else ""
        if self.rewrites:
            layout += f", {counted(len(self.rewrites), 'depthwise convolution')} with a rewritten backward pass"
        return f"device {self.device_type}, precision {self.name}{layout} ({self.reason})"


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
            (:mod:`tldet.system.cache`) for this processor and this model, so that the same run always uses the same
            precision.
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
            return Precision("bf16", kind, reason="GPU with bf16")
        return Precision("fp16", kind, reason="GPU without bf16")
    if kind != "cpu":
        return Precision("fp32", kind, reason="default of this device")
    return _choose_on_cpu(model, trial, work)


def _choose_on_cpu(model: nn.Module, trial: Callable[[], Any] | None, work: str) -> Precision:
    """Choose between fp32 and bf16 by a measurement, if the processor has bf16 instructions."""
    has_bf16 = cpu_has_bf16()
    rewritten = _rewrites(model, "cpu", ["fp32", "bf16"] if has_bf16 else ["fp32"], trial, work)
    if not has_bf16 or trial is None:
        reason = "bf16 not measured" if has_bf16 else "no bf16 instructions"
        return Precision("fp32", reason=reason, rewrites=rewritten.get("fp32", {}))
    key = timing_key(model, f"{work} {rewritten}" if rewritten else work)
    seconds, cached = remembered("precision", key, lambda: measure_precisions(model, trial, rewritten))
    name: Name = "bf16" if seconds["bf16"] < _WORTH_IT * seconds["fp32"] else "fp32"
    when = "; cached" if cached else ""
    when += ", difference too small for bf16" if name == "fp32" and seconds["bf16"] < seconds["fp32"] else ""
    reason = f"step time: fp32 {seconds['fp32']:.3f} s, bf16 {seconds['bf16']:.3f} s{when}"
    return Precision(name, reason=reason, rewrites=rewritten.get(name, {}))


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


def _check(requested: str, device: torch.device) -> Name:
    """Return the requested precision.

    Raises:
        ConfigError: the device does not support it.
    """
    key, kind = f"precision {requested!r} (training.precision, --precision)", device.type
    if requested not in _DTYPES:
        raise ConfigError(f"{key}: must be auto, {', '.join(_DTYPES)}")
    if requested == "fp16" and kind != "cuda":
        raise ConfigError(f"{key}: needs a CUDA GPU; use 'auto'")
    if requested == "bf16" and kind == "cpu" and not cpu_has_bf16():
        raise ConfigError(f"{key}: this processor has no bf16 instructions; use 'auto'")
    if requested == "bf16" and kind == "cuda" and not gpu_has_bf16(device):
        raise ConfigError(f"{key}: this GPU has no bf16; use 'auto'")
    return requested  # type: ignore[return-value]


def measure_precisions(
    model: nn.Module, trial: Callable[[], Any], rewritten: Mapping[str, Rewrites]
) -> dict[str, float]:
    """Measure the seconds of a pass in fp32 and in bf16.

    Other processes may slow down any pass, so both are measured in turns and compared within each turn. The median of
    the ratios decides, so that the choice is the same on all machines of a type.
    """
    candidates = [Precision(name, rewrites=rewritten.get(name, {})) for name in ("fp32", "bf16")]
    plain: list[float] = []
    ratios: list[float] = []
    with undisturbed(model):
        while len(ratios) < _MOST_TURNS:
            fp32, bf16 = (step_seconds(one, one.prepare(model), trial) for one in candidates)
            plain.append(fp32)
            ratios.append(bf16 / fp32)
            clear = max(ratios) < _WORTH_IT / _NEAR or min(ratios) > _WORTH_IT * _NEAR
            if clear and len(ratios) >= _LEAST_TURNS:
                break
    rewrite(model, {})
    seconds = median(plain)
    return {"fp32": seconds, "bf16": seconds * median(ratios)}


def step_seconds(precision: Precision, model: nn.Module, trial: Callable[[], Any]) -> float:
    """Measure the seconds of a pass of a prepared model."""
    return pass_seconds(model, trial, precision.autocast)


def measure_compiled(
    model: nn.Module, trial: Callable[[], Any], precision: Precision, work: str
) -> tuple[dict[str, Any], bool]:
    """Measure a step in eager mode and with ``torch.compile``.

    Args:
        model: the model.
        trial: runs a forward pass in training mode and returns the loss.
        precision: precision of the run.
        work: further properties that times depend on, such as the image size.

    Returns:
        Arguments of :func:`~tldet.models.compiling.compile_if_faster`. Times are cached, so that a resumed run makes
        the same choice.
    """
    key = repr((timing_key(model, work), precision.name, *sorted(precision.rewrites)))
    seconds = partial(step_seconds, precision, precision.prepare(model), trial)
    return remembered("compile", key, lambda: compare_compiled(model, seconds))
