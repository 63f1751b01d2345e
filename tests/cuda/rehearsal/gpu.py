"""The rehearsal itself: torch believes that CUDA devices are present."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from .counts import TORCH
from .dispatch import Dispatcher, Mode
from .tensors import CudaTensor, Current, count_sync


class Properties:
    """Properties of a device, as torch.cuda.get_device_properties returns them."""

    name, total_memory, major, minor, multi_processor_count = "Rehearsal GPU", 24 * 2**30, 8, 6, 84


class Gpu(Dispatcher):
    """CUDA devices inside the ``with`` block.

    Args:
        count: number of devices.
        strict: raise when devices are mixed; otherwise only record it in ``mixes``.
        within: parts of the paths of files whose lines are named as call sites; the innermost match counts.
        bf16: whether the devices support bf16.
    """

    def __init__(
        self, count: int = 1, *, strict: bool = True, within: tuple[str, ...] = ("/tldet/",), bf16: bool = True
    ) -> None:
        super().__init__(count, strict=strict, within=within)
        self.bf16 = bf16

    def __enter__(self) -> Gpu:
        assert Current.gpu is None, "a rehearsal is running already"
        Current.gpu = self
        self._stack = contextlib.ExitStack()
        with contextlib.suppress(AttributeError):
            torch._C._ensureCUDADeviceGuardSet()
        self._stack.enter_context(_backward_allowed())
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)
        for patch in self._patches():
            self._stack.enter_context(patch)
        self._stack.callback(setattr, torch.backends.cudnn, "enabled", torch.backends.cudnn.enabled)
        torch.backends.cudnn.enabled = False  # otherwise BatchNorm requests cuDNN's kernel
        self._stack.enter_context(torch.autograd.set_multithreading_enabled(False))
        self._stack.enter_context(Mode(self))
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()
        Current.gpu = None

    def _patches(self) -> Iterator[Any]:
        cuda = torch.cuda
        for name, value in self._silent().items():
            yield mock.patch.object(cuda, name, value)
        noted = {name: self._noted(name, value) for name, value in self._functions().items()}
        for name, value in noted.items():
            yield mock.patch.object(cuda, name, value)
        for name in ("get_rng_state", "set_rng_state"):
            yield mock.patch.object(cuda.random, name, noted[name])
        for module in (cuda, cuda.random):
            yield mock.patch.object(module, "manual_seed_all", self._seed_all)
            yield mock.patch.object(module, "manual_seed", self._seed_all)
        for name, value in self._accelerator().items():
            yield mock.patch.object(torch.accelerator, name, value)
        yield mock.patch.object(torch.amp, "is_autocast_available", lambda device_type: device_type in ("cuda", "cpu"))
        yield mock.patch.object(torch.Tensor, "__array__", _array(torch.Tensor.__array__))
        # The DataLoader's pinning thread runs outside of the dispatch mode, which is local to a thread.
        yield mock.patch.object(torch.Tensor, "pin_memory", lambda one, *_: self.pin("pin_memory", one))

    def _accelerator(self) -> dict[str, Callable[..., Any]]:
        """Replacements of functions of torch.accelerator."""
        return {
            "is_available": lambda: True,
            "current_accelerator": lambda check_available=False: torch.device("cuda"),
            "current_device_index": lambda: self.current,
            "set_device_index": lambda device: None,
        }

    def _silent(self) -> dict[str, Callable[..., Any]]:
        """Replacements of functions of torch.cuda whose calls are not recorded."""
        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: self.count,
            "current_device": lambda: self.current,
            "_lazy_init": lambda: None,
            "_lazy_call": lambda call, **_: None,
            "is_current_stream_capturing": lambda: False,
            "_is_in_bad_fork": lambda: False,
            "_exchange_device": self._exchange,
            "_maybe_exchange_device": self._exchange,
        }

    def _exchange(self, index: int) -> int:
        """Make another device the current one; return the number of the one before."""
        before = self.current
        self.current = index if index >= 0 else before
        return before

    def _functions(self) -> dict[str, Callable[..., Any]]:
        """Replacements of functions of torch.cuda whose calls are recorded in ``api``."""
        return {
            "set_device": self._set_device,
            "synchronize": lambda device=None: count_sync("call", "torch.cuda.synchronize"),
            "is_bf16_supported": lambda including_emulation=True: self.bf16 or including_emulation,
            "get_device_name": lambda device=None: Properties.name,
            "get_device_properties": lambda device=None: Properties,
            "get_device_capability": lambda device=None: (Properties.major, Properties.minor),
            "memory_allocated": lambda device=None: 1 << 20,
            "max_memory_allocated": lambda device=None: 2 << 20,
            "memory_reserved": lambda device=None: 4 << 20,
            "reset_peak_memory_stats": lambda device=None: None,
            "empty_cache": lambda: None,
            "get_rng_state_all": lambda: [state.clone() for state in self.states],
            "get_rng_state": lambda device="cuda": self.states[self._index(device)].clone(),
            "set_rng_state": self._set_rng,
            "set_rng_state_all": lambda states: [self._set_rng(state, i) for i, state in enumerate(states)],
        }

    def _noted(self, name: str, value: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.api[(name, self.site())] += 1
            return value(*args, **kwargs)

        return call

    def _set_device(self, device: Any) -> None:
        self.current = self._index(device)

    def _index(self, device: Any) -> int:
        if device is None:
            return self.current
        if isinstance(device, int):
            return device if device >= 0 else self.current
        found = torch.device(device).index
        return self.current if found is None else found

    def _seed_all(self, seed: int) -> None:
        self.states = [torch.Generator().manual_seed(int(seed)).get_state() for _ in range(self.count)]

    def _set_rng(self, state: Tensor, device: Any = "cuda") -> None:
        if isinstance(state, CudaTensor) or state.dtype != torch.uint8:
            raise TypeError("RNG state must be a torch.ByteTensor")
        self.states[self._index(device)] = state.clone()


@contextlib.contextmanager
def _backward_allowed() -> Iterator[None]:
    """Let torch's backward pass run without asking the driver whether CUDA devices are in use.

    Without a driver that question fails (torch 2.15; FakeTensorMode fails in the same way). It is the fifth entry in
    the table of virtual functions of torch's CUDA hooks (the third function of AcceleratorHooksInterface, after two
    destructors). Inside the ``with`` block, a copy of the table is used in which that entry returns True.
    """
    try:
        hooks = ctypes.CDLL(str(Path(TORCH) / "lib" / "libtorch_cpu.so"))["_ZN2at6detail12getCUDAHooksEv"]
    except (AttributeError, OSError):  # another platform or version: the self-check tells whether it is needed
        yield
        return
    hooks.restype = ctypes.c_void_p
    place = ctypes.c_void_p.from_address(hooks())
    original, length, question = place.value, 128, 4
    entries = (ctypes.c_size_t * length).from_buffer_copy(ctypes.string_at(original or 0, 8 * length))
    yes = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.c_int8)(lambda *_: True)
    entries[question] = ctypes.cast(yes, ctypes.c_void_p).value or 0
    place.value = ctypes.addressof(entries)
    try:
        yield
    finally:
        place.value = original


def _array(original: Any) -> Any:
    def call(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        return self.numpy() if isinstance(self, CudaTensor) else original(self, *args, **kwargs)

    return call
