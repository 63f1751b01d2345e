"""Operators that an exported graph calls as a whole, because their work depends on the data.

Tracing cannot follow NMS or the choice of a pyramid level. While a model is exported, such a function is recorded as
one operator of fixed output shapes. The ONNX export translates it to ONNX operators
(:mod:`tldet.exporting.translations`); a ``torch.export`` file calls the function that eager prediction calls.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

NAMESPACE = "tldet"


class GraphOperator:
    """Operator of exported graphs that calls a Python function.

    Args:
        name: name of the operator in the namespace ``tldet``.
        schema: arguments and results in torch's notation.
        run: the function.
        outline: the same for tensors without contents, which yields the shapes of the results.
    """

    def __init__(self, name: str, schema: str, run: Callable[..., Any], outline: Callable[..., Any]) -> None:
        self.name, self.schema, self.run, self.outline = name, schema, run, outline

    def __call__(self, *args: Any) -> Any:
        """Call the operator, so that a graph records it."""
        return self.define()(*args)

    def define(self) -> Any:
        """Return the operator, which is defined on the first call: a graph that uses it cannot be read before."""
        operators = getattr(torch.ops, NAMESPACE)
        if not hasattr(operators, self.name):
            name = f"{NAMESPACE}::{self.name}"
            torch.library.define(name, self.schema)
            torch.library.impl(name, "default", self.run)
            torch.library.register_fake(name, self.outline)
        return getattr(operators, self.name).default
