"""Modules that compute differently while their parameters, buffers and state-dict keys stay the same.

An overlay replaces a module in its parents. It is an instance of the module's class as well, so that code which looks
for convolutions or norms finds it, and it shares parameters, buffers, submodules and hooks with the original module.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, ClassVar, TypeVar

from torch import nn

_T = TypeVar("_T", bound="Overlay")
Replaced = list[tuple[nn.Module, str, nn.Module]]  # (parent, name in the parent, original module)


class Overlay(nn.Module):
    """Base of the forward passes that replace others; subclasses call ``super().forward`` for the original one.

    Overlays can be copied and pickled although their classes are created at run time.
    """

    name_prefix: ClassVar[str] = "Overlaid"  # of the class created for a module

    def __reduce_ex__(self, _: Any) -> Any:
        return _blank, _classes(type(self)), self.__dict__


def overlay(module: nn.Module, kind: type[_T], **attributes: Any) -> _T:
    """Create the overlay of a module; the module itself does not change.

    Args:
        module: the module.
        kind: class of the overlay.
        attributes: its further attributes.
    """
    made: _T = _twin(module, _combined(kind, type(module)))
    made.__dict__.update(attributes)
    return made


def original(module: Overlay) -> Any:
    """Create the module without its outermost overlay; parameters and buffers stay shared."""
    kind, below = type(module).__bases__
    made = _twin(module, below)
    for name in kind.__annotations__:
        made.__dict__.pop(name, None)
    return made


def replace_modules(model: nn.Module, replacements: Mapping[nn.Module, nn.Module]) -> Replaced:
    """Replace modules wherever they are registered in ``model``; ``model`` itself cannot be replaced.

    Returns:
        For :func:`put_back`.
    """
    pairs = [(parent, name, child) for parent in model.modules() for name, child in parent._modules.items()]
    replaced = [(parent, name, child) for parent, name, child in pairs if child is not None and child in replacements]
    for parent, name, child in replaced:
        parent._modules[name] = replacements[child]
    return replaced


def put_back(replaced: Replaced) -> None:
    """Undo :func:`replace_modules`."""
    for parent, name, child in replaced:
        parent._modules[name] = child


def _twin(module: nn.Module, kind: type[nn.Module]) -> Any:
    """Create an instance of ``kind`` with the attributes of ``module``: the same parameters, buffers and hooks."""
    made = kind.__new__(kind)
    made.__dict__.update(module.__dict__)
    made.__dict__.pop("_compiled_call_impl", None)  # calls the forward pass of ``module``
    return made


def _create(kind: type[Overlay], below: type[nn.Module]) -> Any:
    return type(f"{kind.name_prefix}{below.__name__}", (kind, below), {"__module__": below.__module__})


_combined: Any = cache(_create)  # one class per pair


def _classes(kind: Any) -> tuple[type[nn.Module], ...]:
    """Return the importable classes that an overlay's class consists of, innermost first."""
    if not issubclass(kind, Overlay):
        return (kind,)
    outer, below = kind.__bases__
    return (*_classes(below), outer)


def _blank(below: type[nn.Module], *kinds: type[Overlay]) -> Any:
    """Create an overlay without state, for copying and pickling."""
    for kind in kinds:
        below = _combined(kind, below)
    return below.__new__(below)
