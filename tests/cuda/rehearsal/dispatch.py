"""The device rules of CUDA for one operation: which device computes it, and whether the host waits."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from .counts import Counts
from .rules import FIXED, INDEXING, NO_LAUNCH, SCALAR_FRIENDLY, SHAPES, UNDETERMINISTIC, is_cuda, leaves, mapped
from .tensors import CudaTensor, DeviceMixError, count_sync


class Mode(TorchDispatchMode):
    """Sends every operation to a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        super().__init__()
        self.dispatcher = dispatcher

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.dispatcher.run(func, args, kwargs or {})


class Dispatcher(Counts):
    """Computes operations on the CPU under CUDA's device rules.

    Args:
        count: number of devices.
        strict: raise when devices are mixed; otherwise only record it in ``mixes``.
        within: see :class:`Counts`.
    """

    def __init__(self, count: int, *, strict: bool, within: tuple[str, ...]) -> None:
        super().__init__(within)
        self.count, self.strict, self.current = count, strict, 0
        self.states = [torch.Generator().manual_seed(0).get_state() for _ in range(count)]  # of the random generators
        self._cumprods = 0
        self._pinned: set[int] = set()
        self._kept: list[Tensor] = []

    def device(self, given: Any) -> torch.device:
        """Return the device with its index, as tensors report it."""
        device = torch.device(given)
        index = self.current if device.index is None else device.index
        if index >= self.count:
            raise RuntimeError("CUDA error: invalid device ordinal")
        return torch.device("cuda", index)

    def run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute one aten or custom operation."""
        name = func._schema.name.split("::")[-1]
        flat = [*leaves(args), *leaves(kwargs.values())]
        tensors = [x for x in flat if isinstance(x, Tensor)]
        ours = [t for t in tensors if isinstance(t, CudaTensor)]
        requested = next((x for x in flat if isinstance(x, torch.device)), None)
        if name in ("is_pinned", "_pin_memory", "pin_memory"):
            return self.pin(name, args[0])
        if not ours and not is_cuda(requested):
            return func(*args, **kwargs)
        if func.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):  # in inference mode
            with Mode(self):
                return func.decompose(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            return (self._to_copy if name == "_to_copy" else self._copy_)(func, args, kwargs)
        if name == "_local_scalar_dense":
            count_sync("item", "item")
            return func(ours[0].inner)
        if name in FIXED:
            return FIXED[name]
        target = self._target(func, name, args, tensors, requested)
        self._check_generators(name, flat, target)
        self._count(func, name, kwargs)
        return self._compute(func, args, kwargs, target)

    def _count(self, func: Any, name: str, kwargs: dict[str, Any]) -> None:
        if name in SHAPES or (
            name == "repeat_interleave"
            and kwargs.get("output_size") is None
            and func._overloadname in ("Tensor", "self_Tensor")
        ):
            count_sync("shape", name)
        if name == "nms":
            count_sync("nms", name)
        if name == "cumprod":  # backward of prod(dim): for a subclass torch does not ask for zeros, CUDA does: item()
            self._cumprods += 1
            if self._cumprods % 2:
                count_sync("item", "backward of prod")
        if name.removesuffix(".out") in UNDETERMINISTIC:
            self.undeterministic[(name, self.site())] += 1
        if not func.is_view and name not in NO_LAUNCH:
            self.ops[name] += 1
        if name.startswith(("cudnn_", "miopen_")):
            raise NotImplementedError(f"rehearsal: {name}")

    def _target(
        self, func: Any, name: str, args: Any, tensors: list[Tensor], requested: torch.device | None
    ) -> torch.device | None:
        """Return the device that computes an operation, None for the host; raise if there are several."""
        if requested is not None:
            return self.device(requested) if is_cuda(requested) else None
        target = next((t.device for t in tensors if isinstance(t, CudaTensor)), None)
        if target is None:
            return None
        if name.startswith(("_foreach", "_fused_", "_amp_foreach")):
            self._check_lists(name, args)
            return target
        if name in INDEXING:
            self._check_indices(name, args)
            return args[0].device if isinstance(args[0], CudaTensor) else None
        scalars_join = torch.Tag.pointwise in func.tags or name in SCALAR_FRIENDLY
        for t in tensors:
            if t.device != target and not (t.device.type == "cpu" and t.dim() == 0 and scalars_join):
                self._mixed(name, target, t.device)
        return target

    def _check_lists(self, name: str, args: Any) -> None:
        lists = [a for a in args if isinstance(a, (list, tuple)) and a and isinstance(a[0], Tensor)]
        for row in range(len(lists[0]) if lists else 0):
            devices = {one[row].device for one in lists if row < len(one) and one[row].dim()}
            if len(devices) > 1:
                self._mixed(name, *sorted(devices, key=str)[:2])

    def _check_indices(self, name: str, args: Any) -> None:
        base, indices = args[0], args[1]
        for index in indices:
            if index is not None and isinstance(base, CudaTensor):
                self._check_index(name, args, index)
            elif isinstance(index, CudaTensor):
                self._mix_error(name, "indices should be on the same device as the indexed tensor (cpu)")
        if len(args) > 2 and args[2].device != base.device and (args[2].device.type != "cpu" or args[2].dim()):
            self._mixed(name, base.device, args[2].device)

    def _check_index(self, name: str, args: Any, index: Tensor) -> None:
        if not isinstance(index, CudaTensor):
            count_sync("h2d", f"{name} by a host index")
            return
        if index.device != args[0].device:
            self._mixed(name, args[0].device, index.device)
        fills = "put" in name and args[2].numel() == 1 and args[2].device.type == "cpu" and len(args[1]) == 1
        if index.dtype in (torch.bool, torch.uint8) and not fills:
            count_sync("shape", f"{name} by a mask")

    def _mixed(self, name: str, one: Any, other: Any) -> None:
        found = f"found at least two devices, {one} and {other}! (in {name})"
        self._mix_error(name, f"Expected all tensors to be on the same device, but {found}")

    def _mix_error(self, name: str, message: str) -> None:
        self.mixes[(name, self.site())] += 1
        if self.strict:
            raise DeviceMixError(message)

    def _check_generators(self, name: str, flat: list[Any], target: torch.device | None) -> None:
        for one in flat:
            if isinstance(one, torch.Generator) and target is not None and one.device.type == "cpu":
                raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' (in {name})")

    def _to_copy(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        source = args[0]
        requested = kwargs.get("device", source.device)
        rest = {k: v for k, v in kwargs.items() if k not in ("device", "non_blocking", "pin_memory")}
        self._count_copy(source, is_cuda(requested), bool(kwargs.get("non_blocking")), "to")
        made = func(source.inner if isinstance(source, CudaTensor) else source, **rest)
        if isinstance(source, CudaTensor) and is_cuda(requested):
            self.ops["_to_copy"] += 1
        return self._wrapped("_to_copy", made, self.device(requested)) if is_cuda(requested) else made

    def _copy_(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        into, source = args[0], args[1]
        to_gpu = isinstance(into, CudaTensor)
        self._count_copy(source, to_gpu, bool(args[2] if len(args) > 2 else kwargs.get("non_blocking")), "copy_")
        if isinstance(source, CudaTensor) and to_gpu:
            self.ops["copy_"] += 1
        func(into.inner if to_gpu else into, source.inner if isinstance(source, CudaTensor) else source)
        return into

    def _wrapped(self, name: str, result: Tensor, device: torch.device) -> CudaTensor:
        if result.dtype == torch.float64:
            self.doubles[(name, self.site())] += 1
        return CudaTensor(result, device)

    def _count_copy(self, source: Tensor, to_gpu: bool, non_blocking: bool, what: str) -> None:
        from_gpu = isinstance(source, CudaTensor)
        if from_gpu == to_gpu:
            return
        if not non_blocking:
            count_sync("d2h" if from_gpu else "h2d", what)
        elif from_gpu:
            count_sync("unpinned", what)
        elif source.numel() and source.untyped_storage()._cdata not in self._pinned:
            count_sync("unpinned", f"{what} {source.numel() * source.element_size()} bytes")

    def pin(self, name: str, source: Tensor) -> Any:
        """Copy a host tensor to memory that counts as pinned; with name ``is_pinned``, return whether it is."""
        if isinstance(source, CudaTensor):
            if name == "is_pinned":
                return False
            raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
        if name == "is_pinned":
            return source.untyped_storage()._cdata in self._pinned
        copy = torch.empty_like(source).copy_(source)
        self._pinned.add(copy.untyped_storage()._cdata)
        self._kept = [*self._kept[-64:], copy]  # so that the address is not reused at once
        return copy

    def _compute(self, func: Any, args: Any, kwargs: dict[str, Any], target: torch.device | None) -> Any:
        seen: dict[int, CudaTensor] = {}

        def bare(x: Any) -> Any:
            if isinstance(x, CudaTensor):
                seen[id(x.inner)] = x
                return x.inner
            return torch.device("cpu") if isinstance(x, torch.device) else x

        plain, named = mapped(bare, args), {key: mapped(bare, value) for key, value in kwargs.items()}
        if "device" in named:
            named["device"] = torch.device("cpu")
        named.pop("pin_memory", None)
        with self._random_numbers(func, target):
            out = func(*plain, **named)
        if torch.Tag.inplace_view in func.tags and isinstance(args[0], CudaTensor):
            with no_dispatch():
                func(*args, **kwargs)

        def wrapped(x: Any) -> Any:
            if not isinstance(x, Tensor) or target is None:
                return x
            return seen[id(x)] if id(x) in seen else self._wrapped(func._schema.name, x, target)

        # A view of a tensor that was created outside of inference mode is not an inference tensor.
        normal = func.is_view and torch.is_inference_mode_enabled() and not args[0].is_inference()
        with torch.inference_mode(False) if normal else contextlib.nullcontext():
            return mapped(wrapped, out)

    @contextlib.contextmanager
    def _random_numbers(self, func: Any, target: torch.device | None) -> Any:
        """Draw random numbers of a device from the state of that device."""
        if torch.Tag.nondeterministic_seeded not in func.tags or target is None:
            yield
            return
        before = torch.random.default_generator.get_state()
        torch.random.default_generator.set_state(self.states[target.index])
        yield
        self.states[target.index] = torch.random.default_generator.get_state()
        torch.random.default_generator.set_state(before)
