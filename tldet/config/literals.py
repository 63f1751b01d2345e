"""Reading of config text as literals, without running code."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from tldet.errors import ConfigError
from tldet.system.inputs import read_file

TOO_DEEP = (RecursionError, MemoryError)  # raised by Python's parser
BITS = 64  # of an integer


def read_literals(path: Path) -> dict[str, Any]:
    """Evaluate the assignments of a config file without running it.

    Raises:
        ConfigError: the file cannot be read, or contains anything but assignments of literals.
    """
    try:
        return _assignments(path, ast.parse(_text(path), filename=str(path)))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: is not valid Python: {error.msg}") from None
    except ValueError as error:  # a zero byte
        raise ConfigError(f"{path}: is not a text file: {error}") from None
    except TOO_DEEP:
        raise ConfigError(f"{path}: is nested too deeply") from None


def _text(path: Path) -> str:
    content = read_file(path, ConfigError)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: is not UTF-8 (byte 0x{content[error.start]:02x}; Latin-1 or another encoding?); save it "
            "as UTF-8"
        ) from None


def _assignments(path: Path, tree: ast.Module) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for node in tree.body:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue  # a docstring
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            raise _code(path, node)
        values[node.targets[0].id] = literal(path, node.value)
    return values


def literal(path: str | Path, node: ast.expr) -> Any:
    """Evaluate a literal in the text of ``path``; ``dict(...)`` calls are literals too.

    Raises:
        ConfigError: the text is not a literal.
        RecursionError: the literal is nested too deeply.
    """
    if isinstance(node, ast.Dict):
        keys = [literal(path, key) if key else None for key in node.keys]
        if any(not isinstance(key, (str, int)) for key in keys):
            raise _code(path, node)
        return dict(zip(keys, (literal(path, value) for value in node.values), strict=True))
    if isinstance(node, ast.Call):
        plain = isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args
        if not plain or any(word.arg is None for word in node.keywords):
            raise _code(path, node)
        return {str(word.arg): literal(path, word.value) for word in node.keywords}
    if isinstance(node, ast.List):
        return [literal(path, item) for item in node.elts]
    if isinstance(node, ast.Tuple):
        return tuple(literal(path, item) for item in node.elts)
    numbers = (one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, int))
    if any(number.bit_length() > BITS for number in numbers):
        raise ConfigError(f"{path}:{node.lineno}: contains an integer of more than {BITS} bits")
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):  # a set of lists is the latter
        raise _code(path, node) from None


def _code(path: str | Path, node: ast.AST) -> ConfigError:
    text = ast.unparse(node).splitlines()[0][:60]
    line = getattr(node, "lineno", 0)
    return ConfigError(f"{path}:{line}: a config may contain only literals, dict(...) and _base_, not code: {text}")
