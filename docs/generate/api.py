"""The API reference: the public names of ``tldet``, rendered by mkdocstrings."""

from __future__ import annotations

import inspect
from collections.abc import Iterable

import tldet
from docs.generate.texts import table
from tldet.plugins import names_in

INTRO = """# Python API

`import tldet` gives these names, and nothing else is public. Names, options and defaults are those of the command line:
`--batch-size 8` is `batch_size=8`. Errors that you can correct are `tldet.TldetError`.
"""
REGISTRIES = """## Registries

Components by the names that configs use. Register your own with a decorator such as `@tldet.HEADS.register_module()`
([Extending](../extending.md)).
"""


def page() -> str:
    """Return the page."""
    public = {name: getattr(tldet, name) for name in tldet.__all__}
    registries = {name: one for name, one in public.items() if hasattr(one, "module_dict")}
    functions = [name for name, one in public.items() if inspect.isfunction(one)]
    classes = [name for name, one in public.items() if inspect.isclass(one)]
    rows = [(f"`tldet.{name}`", ", ".join(f"`{one}`" for one in names_in(each))) for name, each in registries.items()]
    texts = [INTRO, "## Functions\n", *_blocks(functions), "## Classes\n", *_blocks(classes)]
    return "\n".join([*texts, REGISTRIES, table(["registry", "components"], rows)])


def _blocks(names: Iterable[str]) -> list[str]:
    return [f"::: tldet.{name}\n" for name in names]
