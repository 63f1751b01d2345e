"""Networks without weights: their shapes, sizes and costs are there at once, whatever they weigh."""

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
    """Weights are made on the meta device; everything else, which constructors may compute with, is real.

    ``with torch.device("meta")`` would also take the numbers that some constructors (torchvision's RegNet) read back.
    """

    CONSTRUCTORS = (torch.empty, torch.zeros, torch.ones)
    DRAWS = (Tensor.normal_, Tensor.uniform_)

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by torch in the place of ``func``."""
        given = dict(kwargs or {})
        if func in self.DRAWS or getattr(func, "__module__", "") == nn.init.__name__:
            tensor = args[0] if args else given["tensor"]
            if tensor.is_meta:
                return tensor  # torch would import its compiler, which takes seconds, to fill nothing
        if func in self.CONSTRUCTORS and given.get("device") is None:
            given["device"] = "meta"
        return func(*args, **given)


def without_storage(build: Callable[[], _M]) -> _M:
    """The module that ``build`` makes, on the meta device: weights take no memory and no random numbers."""
    with _NoStorage():
        module = build()
    return module.to("meta")


def blank(build: Callable[[], _M]) -> _M:
    """The module that ``build`` makes with weights of nothing but zeros, which take no memory until they are used.

    It runs on the CPU. A module :func:`without_storage` would need torch's compiler, whose import takes seconds and
    140 MB.
    """
    module = without_storage(build)
    like = module.state_dict()
    state = {key: torch.zeros((), dtype=t.dtype, device="cpu").expand(t.shape) for key, t in like.items()}
    module.load_state_dict(state, assign=True)
    return module


def filled(build: Callable[[], _M], state: Mapping[str, Tensor]) -> _M:
    """The module that ``build`` makes with the weights of ``state``; weights of its own are not drawn first.

    The module holds the tensors of ``state`` themselves where their number format fits.

    Raises:
        RuntimeError: ``state`` does not fit, as of ``load_state_dict``.
        TypeError: a tensor of ``state`` is of another kind of dtype than the module's, or not a plain array.
    """
    with suppress(RuntimeError):  # a constructor computes with its weights, or the state does not fit: then said below
        with _NoStorage():
            module = build()
        own = module.state_dict()
        _refuse_misfit(own, state)
        fitting = {k: v.to(own[k].dtype) if k in own and isinstance(v, Tensor) else v for k, v in state.items()}
        module.load_state_dict(fitting, assign=True)
        if not any(tensor.is_meta for tensor in _tensors(module)):  # all that was made is part of the state
            return module
    module = build()
    _refuse_misfit(module.state_dict(), state)
    module.load_state_dict(state)
    return module


def _refuse_misfit(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    if problem := problem_of(own, state, values=False):
        raise TypeError(problem)


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters, buffers, and tensors that are plain attributes."""
    yield from chain(module.parameters(), module.buffers())
    for part in module.modules():
        yield from (value for value in vars(part).values() if isinstance(value, Tensor))
