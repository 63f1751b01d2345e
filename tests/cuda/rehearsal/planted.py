"""Self-check of the rehearsal: planted faults are reported, and correct code passes.

In ``tests/cuda``, ``python -m rehearsal.planted`` runs it as a script.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from .gpu import Gpu

Call = Callable[[], Any]


def failures() -> list[str]:
    """Return one line per planted fault that is not reported and per correct call that fails."""
    found: list[str] = []
    with Gpu(2) as gpu:
        x, host = torch.rand(2, 3, 8, 8, device="cuda"), torch.rand(2, 3, 8, 8)
        found += [line for name, call in wrong(x, host).items() if (line := outcome(name, call, Exception))]
        found += [line for name, call in right(x, host).items() if (line := outcome(name, call, None))]
        found += [line for kind, call in waits(x, host) if (line := miscount(gpu, kind, call))]
        found += [line for call in free(x, host) if (line := miscount(gpu, None, call))]
        checks = (moved_modules, exchanged_data, gradients, random_numbers, autocast_lists)
        found += [check.__name__ for check in checks if not check(x)]
    return found


def outcome(name: str, call: Call, expected: type[Exception] | None) -> str | None:
    """Return what is wrong with the outcome of a call, None if it is as expected."""
    try:
        call()
    except (RuntimeError, TypeError) as error:
        return None if expected else f"{name}: {type(error).__name__}: {str(error)[:300]}"
    return f"{name}: no error" if expected else None


def miscount(gpu: Gpu, kind: str | None, call: Call) -> str | None:
    """Return what is wrong with the synchronizations of a call that should count one of a kind, or none."""
    gpu.reset()
    call()
    expected = {kind: 1} if kind else {}
    return None if gpu.by_kind() == expected else f"expected {expected}, counted {gpu.by_kind()}: {gpu.table()}"


class Buffered(nn.Module):
    """A module with a tensor that is no buffer and so stays on the host."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bias = nn.Conv2d(3, 4, 3), torch.ones(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.bias[:, None, None]


def wrong(x: Tensor, host: Tensor) -> dict[str, Call]:
    """Return calls that raise on CUDA."""
    ops, rows, boxes = torchvision.ops, torch.tensor([0, 1]), x[0, 0, :, :4]
    return {
        "a tensor that is no buffer": lambda: Buffered().to("cuda")(x),
        "model on the host": lambda: nn.Conv2d(3, 4, 3)(x),
        "input on the host": lambda: nn.Conv2d(3, 4, 3).cuda()(host),
        "plus": lambda: x + host,
        "cat": lambda: torch.cat([x, host]),
        "stack of scalars": lambda: torch.stack([x.sum(), host.sum()]),
        "gather": lambda: x.flatten().gather(0, rows),
        "index_select": lambda: x.index_select(0, rows),
        "host by a device index": lambda: host[rows.cuda()],
        "host by a device mask": lambda: host[x > 0.5],
        "index_put of a host value": lambda: x.index_put_((rows.cuda(),), host),
        "where": lambda: torch.where(x > 0.5, x, host),
        "nms": lambda: ops.nms(boxes, torch.rand(8), 0.5),
        "box_iou": lambda: ops.box_iou(boxes, host[0, 0, :, :4]),
        "roi_align": lambda: ops.roi_align(x, torch.rand(1, 5), 2),
        "numpy()": lambda: x.numpy(),
        "numpy() of a view": lambda: x[0].detach().numpy(),
        "np.asarray": lambda: np.asarray(x),
        "np.sum": lambda: np.sum(x),
        "numpy array by a device index": lambda: np.zeros(4)[rows.cuda()],
        "host generator": lambda: torch.randperm(4, device="cuda", generator=torch.Generator()),
        "two GPUs": lambda: x + x.to("cuda:1"),
        "no such GPU": lambda: x.to("cuda:2"),
        "torch.from_numpy": lambda: torch.from_numpy(x),
        "out=": lambda: torch.add(x, x, out=torch.empty(2, 3, 8, 8)),
        "loss target": lambda: nn.functional.cross_entropy(x[:, :, 0, 0], rows),
        "pinning": lambda: x.pin_memory(),
    }


def right(x: Tensor, host: Tensor) -> dict[str, Call]:
    """Return calls that work on CUDA."""
    rows = torch.tensor([0, 1])
    return {
        "host scalar": lambda: x * torch.tensor(2.0),
        "device by a host index": lambda: x[rows],
        "host number put": lambda: x.clone().masked_fill_(x > 0.5, 0.0),
        "scalar put by a mask": lambda: x.clone().__setitem__(x > 0.5, 0.0),
        "data": lambda: setattr(nn.Linear(2, 2).cuda().weight, "data", torch.zeros(2, 2, device="cuda")),
        "cpu()": lambda: np.asarray(x.cpu()),
        "views in inference mode": lambda: torch.inference_mode()(lambda: x.view(-1)[:3].to("cpu"))(),
        "format": lambda: f"{x.sum():.2f}",
        "tolist": lambda: x.tolist(),
    }


def waits(x: Tensor, host: Tensor) -> list[tuple[str, Call]]:
    """Return calls with one synchronization, and its kind."""
    nms = torchvision.ops.nms
    return [
        ("item", lambda: float(x.sum())),
        ("item", lambda: bool((x > 2).any())),
        ("shape", lambda: (x > 0.5).nonzero()),
        ("shape", lambda: x[x > 0.5]),
        ("shape", lambda: torch.unique(x)),
        ("h2d", lambda: torch.tensor([1.0, 2.0], device="cuda")),
        ("h2d", lambda: x.new_tensor([1.0, 2.0])),
        ("h2d", lambda: host.to("cuda")),
        ("d2h", lambda: x.to("cpu")),
        ("unpinned", lambda: host.to("cuda", non_blocking=True)),
        ("nms", lambda: nms(torch.rand(3, 4, device="cuda"), torch.rand(3, device="cuda"), 0.5)),
    ]


def free(x: Tensor, host: Tensor) -> list[Call]:
    """Return calls without synchronization."""
    return [
        lambda: host.pin_memory().to("cuda", non_blocking=True),
        lambda: x.clone().__setitem__(x > 0.5, 0.0),
        lambda: (x * 2 + 1).sum().sqrt(),
        lambda: x.argmax(1),
        lambda: torch.full((), 2.0, device="cuda") + torch.arange(3, device="cuda"),
    ]


def moved_modules(_: Tensor) -> bool:
    """Check that Module.to keeps the Parameter objects, to the device and back."""
    linear = nn.Linear(4, 4)
    weight, values = linear.weight, linear.weight.tolist()
    linear.to("cuda")
    linear(torch.ones(1, 4, device="cuda")).sum().backward()
    there = linear.weight is weight and weight.is_cuda
    linear.to("cpu")
    back = linear.weight is weight and not weight.is_cuda and weight.grad is not None and not weight.grad.is_cuda
    return there and back and weight.tolist() == values


def exchanged_data(_: Tensor) -> bool:
    """Check that assigning ``data`` exchanges tensors, as moving averages of weights do."""
    weight, shadow = nn.Parameter(torch.ones(2, device="cuda")), torch.zeros(2, device="cuda")
    weight.data, shadow = shadow, weight.data
    with torch.no_grad():
        weight.add_(5)
    return bool(weight.tolist() == [5, 5] and shadow.tolist() == [1, 1])


def gradients(_: Tensor) -> bool:
    """Check that gradients are on the device."""
    weight = nn.Parameter(torch.ones(2, device="cuda"))
    (weight * torch.randn(2, device="cuda")).sum().backward()
    return weight.grad is not None and weight.grad.is_cuda


def random_numbers(_: Tensor) -> bool:
    """Check that the device has its own generator, whose state can be saved and restored."""
    torch.manual_seed(3)
    state, host_first = torch.cuda.get_rng_state_all(), torch.rand(2)
    first = torch.rand(2, device="cuda").tolist()
    torch.cuda.set_rng_state_all(state)
    again, other = torch.rand(2, device="cuda").tolist(), torch.rand(2, device="cuda").tolist()
    torch.manual_seed(3)
    return bool(first == again != other and torch.equal(host_first, torch.rand(2)))


def autocast_lists(x: Tensor) -> bool:
    """Check that autocast uses CUDA's lists, which differ from those of the CPU."""
    with torch.autocast("cuda", dtype=torch.bfloat16):
        made = [(x @ x.mT).dtype, nn.functional.softplus(x.bfloat16()).dtype]
    return made == [torch.bfloat16, torch.float32]


if __name__ == "__main__":
    sys.exit("\n".join(failures()) or 0)
