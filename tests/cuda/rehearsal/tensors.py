"""A tensor that reports a CUDA device and computes on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from .gpu import Gpu


class Current:
    """The rehearsal that is entered; there is at most one."""

    gpu: Gpu | None = None


class DeviceMixError(RuntimeError):
    """The error that CUDA raises for tensors on several devices."""


def count_sync(kind: str, what: str) -> None:
    """Count a point at which the host waits for the device."""
    if Current.gpu is not None:
        Current.gpu.syncs[(kind, what, Current.gpu.site())] += 1


class CudaTensor(Tensor):
    """A tensor on a rehearsed CUDA device; ``inner`` holds its values on the CPU."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor, device: torch.device) -> CudaTensor:
        made = Tensor._make_wrapper_subclass(
            cls,
            inner.size(),
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            layout=inner.layout,
            device=device,
        )
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"CudaTensor({self.inner!r}, device='{self.device}')"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert Current.gpu is not None, "a CudaTensor is used outside of its Gpu block"
        return Current.gpu.run(func, args, kwargs or {})

    def tolist(self) -> Any:
        count_sync("d2h" if self.dim() else "item", "tolist")
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        if force:
            count_sync("d2h", "numpy")
            return self.inner.numpy(force=True)
        raise TypeError(
            f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
            "memory first."
        )

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __format__(self, spec: str) -> str:
        if self.dim():
            return format(repr(self), spec)
        count_sync("item", "format")
        return format(self.inner.item(), spec)

    def data_ptr(self) -> int:
        raise RuntimeError("rehearsal: a device tensor has no address")

    def __reduce_ex__(self, protocol: Any) -> Any:
        count_sync("d2h", "pickled or saved")  # torch.save copies to the host
        plain = self.inner.detach().clone().requires_grad_(self.requires_grad)
        return plain.__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            with torch.no_grad():
                copied = self.detach().clone()
            copied = copied.requires_grad_(self.requires_grad)
            if isinstance(self, nn.Parameter):
                copied = nn.Parameter(copied, self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]

    # Tensor.data exchanges tensors in C++, which does not know ``inner``.
    @property
    def data(self) -> Tensor:
        with torch.no_grad():
            return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, CudaTensor):
            self._become(value)
            return
        Tensor.data.__set__(self, value)  # type: ignore[attr-defined]
        self.inner = value.inner

    def _become(self, value: Tensor) -> None:
        """Turn into a host tensor, as Module.to does with parameters and their gradients."""
        gradient = self.grad
        torch.utils.swap_tensors(self, nn.Parameter(value, self.requires_grad))
        if isinstance(gradient, CudaTensor):
            self.grad = gradient.inner

    # Let Module.to keep the Parameter objects, as it does between a real CPU and a real GPU.
    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["inner"], self.device

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, Tensor], device: Any, *_: Any) -> CudaTensor:
        return CudaTensor(inner["inner"], device)
