"""Every Python block of the documentation compiles, and what it takes from tldet exists."""

from __future__ import annotations

import ast
import inspect
import json
from importlib import import_module
from typing import Any

import pytest

import tldet
from tests.docs.pages import Block, blocks


def returned(function: Any) -> Any:
    """The class of what a function returns."""
    real = inspect.unwrap(function)
    return getattr(import_module(real.__module__), real.__annotations__["return"])


# Variables that pages use, with the classes of their values.
VALUES = {
    "detector": returned(tldet.load),
    "detections": tldet.Detections,
    "cats": tldet.Detections,
    "outcome": returned(tldet.finetune),
    "result": returned(tldet.evaluate),
    "report": returned(tldet.study),
}


def has(cls: type[Any], name: str) -> bool:
    return hasattr(cls, name) or any(name in one.__annotations__ for one in cls.__mro__[:-1])


def resolved(node: ast.expr, names: dict[str, Any]) -> Any:
    """The object that a dotted name stands for; None if it does not belong to tldet."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = resolved(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


def imported(tree: ast.AST) -> dict[str, Any]:
    """The names of tldet that a block imports."""
    names: dict[str, Any] = {"tldet": tldet}
    for node in ast.walk(tree):
        module = (
            (node.module or "").replace("tldet_runtime", "tldet.runtime") if isinstance(node, ast.ImportFrom) else ""
        )
        if isinstance(node, ast.ImportFrom) and module.split(".")[0] == "tldet":
            names |= {one.asname or one.name: getattr(import_module(module), one.name) for one in node.names}
    return names


def check(source: str) -> None:
    tree = ast.parse(source)
    compile(tree, "page", "exec")
    names = imported(tree)
    built = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)
        for target in node.targets
        if isinstance(target, ast.Name) and resolved(node.value.func, names) not in (None, tldet.load)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            name = node.value.id
            if name in VALUES and (name not in built or name in ("outcome", "result")):
                assert has(VALUES[name], node.attr), f"{name}.{node.attr}"
        if isinstance(node, ast.Call):
            _check_call(node, names)


def _check_call(node: ast.Call, names: dict[str, Any]) -> None:
    function = resolved(node.func, names)
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name) and function is None:
        owner = VALUES.get(node.func.value.id)
        function = getattr(owner, node.func.attr, None) if owner else None
    if function is None or not callable(function):
        return
    known = inspect.signature(function).parameters
    open_ended = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known.values())
    for keyword in node.keywords:
        assert open_ended or keyword.arg in known, f"{ast.unparse(node.func)} has no argument {keyword.arg}"


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_python(block: Block) -> None:
    check(block.text)


@pytest.mark.parametrize("block", blocks("json"), ids=str)
def test_json(block: Block) -> None:
    assert json.loads(block.text), "an empty object shows nothing"


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("from tldet import finetun", AttributeError),
        ("from tldet_runtime import NumpyDetecto", AttributeError),
        ("from tldet_runtime import NumpyDetector\nNumpyDetector('a', thread=2)", AssertionError),
        ("import tldet\ntldet.finetun('a')", AttributeError),
        ("import tldet\ntldet.finetune('a', outt='b')", AssertionError),
        ("detections.bboxes", AssertionError),
        ("detector.predict('a', threshold=0.3)", AssertionError),
        ("def f(:", SyntaxError),
    ],
)
def test_the_check_can_fail(source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check(source)
