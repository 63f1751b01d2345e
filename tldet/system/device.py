"""Choice of a device, bf16 support, and copies and indexing with few synchronizations of the host.

A GPU runs behind the host. When the host reads a value from it, such as the number of true entries of a mask, it waits
until the GPU has finished its earlier work, and afterwards the GPU waits for new work.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tldet.errors import ConfigError

log = logging.getLogger(__name__)
_DEVICES = ("cpu", "cuda", "mps")
_FAULTS = (RuntimeError, AssertionError, NotImplementedError)  # errors of a device that is missing or does not work
CPUINFO = Path("/proc/cpuinfo")
# Fields of /proc/cpuinfo that differ between processors of one type
_INDIVIDUAL = (
    "processor", "cpu mhz", "bogomips", "microcode", "physical id", "siblings", "core id", "cpu cores", "apicid",
    "initial apicid",
)  # fmt: skip


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a host tensor on ``device``; the host does not wait for a CUDA device to finish its earlier work."""
    return tensor if device.type == "cpu" else tensor.to(device, non_blocking=device.type == "cuda")


def constant(values: Sequence[float], like: Tensor) -> Tensor:
    """Return float32 numbers on the device of ``like``."""
    return send(torch.tensor(values, dtype=torch.float32), like.device)


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the dtype for sums of losses: float64, or float32 on MPS, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def true_rows(masks: Sequence[Tensor]) -> list[Tensor]:
    """Return the indices (n,) of the true entries of each mask (N,); the host waits twice, not once per mask."""
    if len(masks) < 3 or masks[0].device.type == "cpu":
        return [mask.nonzero().flatten() for mask in masks]
    counts = torch.stack([mask.count_nonzero() for mask in masks]).tolist()
    rows = torch.split(torch.cat(list(masks)).nonzero().flatten(), counts)
    starts = accumulate((len(mask) for mask in masks), initial=0)
    return [part - start for part, start in zip(rows, starts, strict=False)]


def to_device(tensors: Sequence[Tensor], device: torch.device | str = "cpu") -> list[Tensor]:
    """Return tensors on ``device``; those on an accelerator are copied to the host at once, so that it waits once."""
    if torch.device(device).type != "cpu":
        return [tensor.to(device) for tensor in tensors]
    remote = [i for i, tensor in enumerate(tensors) if tensor.device.type != "cpu"]
    remote.sort(key=lambda i: -tensors[i].element_size())  # each part starts at a multiple of its element size
    flat = [tensors[i].flatten().view(torch.uint8) for i in remote]
    parts = torch.split(torch.cat(flat).cpu(), [len(part) for part in flat]) if flat else ()
    found = dict(zip(remote, parts, strict=True))
    return [found[i].view(t.dtype).view(t.shape) if i in found else t for i, t in enumerate(tensors)]


def pick_device(name: str = "auto") -> torch.device:
    """Return the device of a name; ``auto`` takes a GPU if there is one that this build of torch supports.

    Raises:
        ConfigError: there is no such device, or it does not work.
    """
    if name == "auto":
        return _auto_device()
    hint = f"; did you mean cuda:{name}?" if name.isdecimal() else ""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in _DEVICES:
        raise ConfigError(f"device {name}: must be auto, cpu, cuda, cuda:N or mps{hint}")
    try:
        _try_out(device)
    except _FAULTS as error:
        raise ConfigError(f"device {name}: {str(error).splitlines()[0]}") from None
    return device


def _auto_device() -> torch.device:
    """Return the current GPU if it works, otherwise the CPU."""
    if torch.cuda.is_available():
        try:
            _try_out(torch.device("cuda"))
            return torch.device("cuda")
        except _FAULTS as error:
            log.warning("the GPU is not used: %s", str(error).splitlines()[0])
    return torch.device("cpu")


def _try_out(device: torch.device) -> None:
    """Run a kernel and wait for it: an allocation alone succeeds on a GPU that is too old for the build of torch."""
    torch.ones(1, device=device).add(1).item()


def cpu_type() -> str:
    """Return model and flags of the processor from /proc/cpuinfo; empty if there is no such file."""
    try:
        first = CPUINFO.read_text(encoding="utf-8").split("\n\n")[0]
    except OSError:
        return ""
    return "\n".join(line for line in first.splitlines() if not line.lower().startswith(_INDIVIDUAL))


def cpu_has_bf16() -> bool:
    """Return True if the processor has bf16 instructions; without them bf16 is hundreds of times slower than fp32."""
    flags = set(cpu_type().split())
    if not flags:
        probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
        return bool(probe()) if probe else False
    return bool(flags & {"avx512_bf16", "amx_bf16"})


def gpu_has_bf16(device: torch.device) -> bool:
    """Return True if a CUDA device, which need not be the current one, computes in bf16 without emulation."""
    with torch.cuda.device(device):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def exporting() -> bool:
    """Return True while ``torch.export`` traces a model."""
    compiler: Any = torch.compiler
    return bool(compiler.is_exporting() if hasattr(compiler, "is_exporting") else compiler.is_compiling())
