"""Construction of networks without storage for their weights, for shapes, sizes and costs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tldet.integrity import problem_of

_M = TypeVar("_M", bound=nn.Module)


class _NoStorage(TorchFunctionMode):
    """Create weights on the meta device, and all other tensors of constructors on the CPU.

    ``with torch.device("meta")`` would include tensors whose values some constructors read (torchvision's RegNet).
    """

    CONSTRUCTORS = (torch.empty, torch.zeros, torch.ones)
    DRAWS = (Tensor.normal_, Tensor.uniform_)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Replace ``func`` for weights."""
        given = dict(kwargs or {})
        if func in self.DRAWS or getattr(func, "__module__", "") == nn.init.__name__:
            tensor = args[0] if args else given["tensor"]
            if tensor.is_meta:
                return tensor  # avoids an import of torch's compiler, which takes seconds
        if func in self.CONSTRUCTORS and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


def without_storage(build: Callable[[], _M]) -> _M:
    """Build a module on the meta device, without memory and random numbers for its weights."""
    with _NoStorage():
        module = build()
    return module.to("meta")


def blank(build: Callable[[], _M]) -> _M:
    """Build a module on the CPU with weights of zeros, which take no memory.

    Unlike a module of :func:`without_storage`, it runs without torch's compiler, whose import takes seconds and 140 MB.
    """
    module = without_storage(build)
    like = module.state_dict()
    state = {key: torch.zeros((), dtype=t.dtype, device="cpu").expand(t.shape) for key, t in like.items()}
    module.load_state_dict(state, assign=True)
    return module


def filled(build: Callable[[], _M], state: Mapping[str, Tensor]) -> _M:
    """Build a module with the weights of ``state``, without initializing weights first.

    The module shares the tensors of ``state`` if their dtype fits.

    Raises:
        RuntimeError: ``state`` does not fit, as in ``load_state_dict``.
        TypeError: a tensor of ``state`` has another kind of dtype than that of the module, or is not a plain array.
    """
    with suppress(RuntimeError):  # a constructor computes with weights, or the state does not fit, which raises below
        with _NoStorage():
            module = build()
        own = module.state_dict()
        _refuse_misfit(own, state)
        fitting = {k: v.to(own[k].dtype) if k in own and isinstance(v, Tensor) else v for k, v in state.items()}
        module.load_state_dict(fitting, assign=True)
        if not any(tensor.is_meta for tensor in _tensors(module)):  # the state contains all tensors
            return module
    module = build()
    _refuse_misfit(module.state_dict(), state)
    module.load_state_dict(state)
    return module


def _refuse_misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    if problem := problem_of(own, state, values=False):
        raise TypeError(problem)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Yield parameters, buffers, and tensors that are plain attributes."""
    yield from chain(module.parameters(), module.buffers())
    for part in module.modules():
        yield from (value for value in vars(part).values() if isinstance(value, Tensor))
