"""The config reference: every key with type, default and meaning, read from what the sections are built into."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from griffe import Docstring, DocstringAttribute, DocstringParameter, DocstringSectionKind
from mmengine.registry import Registry

from docs.generate.texts import markdown, sentence, table
from tldet.config import ComponentType
from tldet.config.check import dataclass_in, describe, parameters
from tldet.plugins import lookup, names_in
from tldet.workflows.training.schema import PRETRAIN_SCHEMA, SCHEMA

INTRO = """# Config keys

Configs are Python files with dicts of plain values and `_base_` ([Train on COCO](../coco.md)).
`--cfg-options a.b=c` sets any of these keys on the command line; items of a list have numbers, as in
`data.train.transforms.1.p=0`. A key that is not listed is an error that names the nearest one.

A section with a `type` is built by the component of that name; your own components add to this list
([Extending](../extending.md)). `imports` at the top level lists the packages that register them. The keys that are
optional in the constructor of a component are optional here, with the same defaults.
"""
_ANY_TRANSFORM = "Any albumentations transform can be named too, as in `dict(type='A.GaussNoise', p=0.3)`."


@dataclass(frozen=True)
class Key:
    """One key of a section.

    Attributes:
        name: dotted within its section.
        type: values that it takes.
        default: as it is written in a config; "required" if it has none.
        meaning: text of the docstring, as Markdown; may be empty.
    """

    name: str
    type: str
    default: str
    meaning: str


def page() -> str:
    """Return the page."""
    return "\n".join([INTRO, *(text for name, part in merged(sections()).items() for text in _section(name, part))])


def sections() -> dict[str, ComponentType]:
    """Return every section that a config of training or pretraining may have, with what it is built into."""
    return {**PRETRAIN_SCHEMA, **SCHEMA}


def merged(schema: Mapping[str, ComponentType]) -> dict[str, ComponentType]:
    """Return the sections, with ``data.train``, ``data.val`` and ``data.test`` as one."""
    found: dict[str, ComponentType] = {}
    for name, part in schema.items():
        found.setdefault(re.sub(r"^data\.(train|val|test)\b", "data.SPLIT", name), part)
    return found


def _section(name: str, part: ComponentType) -> Iterator[str]:
    optional = "" if part.required and "*" not in name else " (optional)"
    yield f"## {name.replace('.*', '.N')}{optional}\n"
    if "SPLIT" in name:
        yield "SPLIT is `train`, `val` or `test`; only `train` is required.\n"
    if not hasattr(part.target, "module_dict"):
        yield f"{summary(part.target)}\n\n{_table(keys(part.target, part.supplied))}"
        return
    if part.shared is not None:
        yield f"Keys of every {part.target.name}:\n\n{_table(keys(part.shared))}"
    for component in own_components(part.target):
        target = lookup(part.target, component)
        yield f"### {component}\n\n{summary(target)}\n\n{_table(keys(target, part.supplied))}"
    if part.target.name == "transform":
        yield f"{_ANY_TRANSFORM}\n"


def own_components(registry: Registry) -> list[str]:
    """Return the names of the components that tldet itself has in a registry."""
    return [name for name in names_in(registry) if registry.module_dict[name].__module__.startswith("tldet.")]


def _table(found: Iterator[Key]) -> str:
    rows = [(f"`{one.name}`", f"`{one.type}`", one.default, one.meaning) for one in found]
    return table(["key", "type", "default", "meaning"], rows) if rows else "No keys.\n"


def keys(target: Callable[..., Any], supplied: Any = (), prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a component or settings class, those of nested settings after their section."""
    meanings = documented(target)
    for name, (hint, required) in parameters(target, supplied).items():
        nested = dataclass_in(hint)
        default = "required" if required else _default(target, name, nested)
        stated = summary(target) if f"`{name}`" in summary(target) else ""
        yield Key(f"{prefix}{name}", _type(hint, nested), default, meanings.get(name, stated))
        if nested is not None:
            yield from keys(nested, prefix=f"{prefix}{name}.")


def _type(hint: Any, nested: type[Any] | None) -> str:
    text = "dict" if nested else describe(hint)
    return re.sub(r"\b(?:typing|types|[a-z_]+(?:\.[a-z_]+)+)\.(?=[A-Z])", "", text).replace("one of ", "")


def _default(target: Callable[..., Any], name: str, nested: type[Any] | None) -> str:
    if nested is not None:
        return "see below"
    value = default_value(target, name)
    return f"`{list(value) if isinstance(value, tuple) else value!r}`"


def default_value(target: Callable[..., Any], name: str) -> Any:
    """Return the default of a parameter, of a class or of the base class that takes it."""
    if dataclasses.is_dataclass(target):
        one = next(field for field in dataclasses.fields(target) if field.name == name)
        return one.default if one.default_factory is dataclasses.MISSING else one.default_factory()
    functions = [vars(one).get("__init__") for one in target.__mro__] if inspect.isclass(target) else [target]
    signatures = (inspect.signature(one).parameters for one in functions if one is not None)
    return next(one[name].default for one in signatures if name in one)


def summary(target: Callable[..., Any]) -> str:
    """Return the first paragraph of a docstring, as Markdown."""
    return markdown((inspect.getdoc(target) or "").partition("\n\n")[0])


def documented(target: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each parameter in docstrings; those of base classes count for inherited ones."""
    found: dict[str, str] = {}
    for one in reversed(target.__mro__[:-1]) if inspect.isclass(target) else [target]:
        for text in (one.__doc__, getattr(vars(one).get("__init__"), "__doc__", None)):
            found |= _described(inspect.cleandoc(text), one.__module__) if text else {}
    return found


def _described(text: str, module: str) -> dict[str, str]:
    kinds = (DocstringSectionKind.parameters, DocstringSectionKind.attributes)
    sections = Docstring(text).parse("google", warnings=False)
    items = [item for section in sections if section.kind in kinds for item in section.value]
    named = [(name, item.description) for item in items for name in _names(item)]
    return {name: sentence(markdown(_referred(name, text, module))) for name, text in named}


def _names(item: DocstringParameter | DocstringAttribute) -> list[str]:
    """Return the parameters that one entry describes: griffe reads "a, b: text" as "a," of type "b"."""
    return [item.name.rstrip(","), *(str(item.annotation).split(", ") if item.name.endswith(",") else [])]


_SEE = re.compile(r"[Ss]ee :(?:class|func):`~?(?:([\w.]+)\.)?(\w+)`")


def _referred(name: str, text: str, module: str) -> str:
    """Return a description with "see X" replaced by the description of the parameter in X, if X has it."""
    found = _SEE.match(text)
    if found is None:
        return text
    other = documented(getattr(import_module(found[1] or module), found[2])).get(name, found[0])
    rest = text[found.end() :].strip(".")
    return f"{other if other.endswith('...') else other.removesuffix('.')}{rest}." if rest else other
