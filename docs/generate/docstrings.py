"""Docstrings for mkdocstrings: functions of a request get its arguments, and roles become code."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from griffe import Docstring, Extension, Function, Object, Parameter, ParameterKind, Parameters

from docs.generate.texts import markdown


class Docstrings(Extension):
    """Changes what is read from the source before it is rendered."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Write roles and double backticks as Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)

    def on_function(self, *, func: Function, **_: Any) -> None:
        """Give a function decorated with ``takes(REQUEST)`` the signature and docstring that it has at run time."""
        if any(str(one.value).startswith("takes(") for one in func.decorators):
            real = getattr(import_module(func.module.path), func.name)
            signature = inspect.signature(real)
            func.parameters = Parameters(*(_parameter(one) for one in signature.parameters.values()))
            func.docstring = Docstring(markdown(inspect.getdoc(real) or ""), parent=func)


def _parameter(one: inspect.Parameter) -> Parameter:
    default = None if one.default is inspect.Parameter.empty else repr(one.default)
    annotation = one.annotation if isinstance(one.annotation, str) else getattr(one.annotation, "__name__", None)
    return Parameter(one.name, annotation=annotation, kind=ParameterKind(one.kind.description), default=default)
