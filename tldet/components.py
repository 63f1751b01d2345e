"""Components that a config uses, and the imports of external code that provide them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from tldet.errors import CheckpointError
from tldet.plugins import MODULE, OPTION, PROVIDERS, REGISTRIES, lookup
from tldet.registry import BACKBONES, DATASETS, HEADS, HOOKS, NECKS, OPTIMIZERS, TRANSFORMS

SECTIONS = {  # config sections that are components
    "model.backbone": BACKBONES,
    "model.neck": NECKS,
    "model.head": HEADS,
    "data.train": DATASETS,
    "data.val": DATASETS,
    "data.test": DATASETS,
    "optimizer": OPTIMIZERS,
}


def components(config: Mapping[str, Any], *within: str) -> Iterator[tuple[Registry, str]]:
    """Yield registry and name of each component that a config uses.

    Args:
        config: a config, checked or not.
        within: only components in these sections (``model``, ``data.val``); all if none is given.
    """
    for path, registry in SECTIONS.items():
        section = _section(config, path)
        if within and not any(f"{path}.".startswith(f"{one}.") for one in within):
            continue
        yield from _named(registry, [section])
        if registry is DATASETS and isinstance(section, Mapping):
            yield from _named(TRANSFORMS, section.get("transforms"))
            sources = section.get("sources")  # of a RelabeledDataset
            yield from _named(DATASETS, list(sources.values()) if isinstance(sources, Mapping) else ())
    if not within:
        yield from _named(HOOKS, config.get("hooks"))


def _section(config: Mapping[str, Any], path: str) -> Any:
    node: Any = config
    for key in path.split("."):
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _named(registry: Registry, sections: Any) -> Iterator[tuple[Registry, str]]:
    for section in sections if isinstance(sections, (list, tuple)) else ():
        if isinstance(section, Mapping) and isinstance(section.get("type"), str):
            yield registry, section["type"]


def needed_imports(config: Mapping[str, Any]) -> list[str]:
    """Return the imports that provide the external components of a config, for its checkpoints."""
    found = []
    for registry, name in components(config):
        target = lookup(registry, name)
        module = getattr(target, "__module__", None) or "tldet"
        provider = PROVIDERS.get((registry.name, name), module)
        own = module == "tldet" or module.startswith("tldet.")
        if target is not None and not own and provider != "__main__":  # a script cannot be imported
            found.append(provider)
    return sorted(set(found))


def external_modules() -> list[str]:
    """Return the modules that have registered components in this process, for processes that it starts."""
    found = set()
    for registry in REGISTRIES:
        for name, target in registry.module_dict.items():
            module = getattr(target, "__module__", None) or "__main__"
            if module != "__main__" and not f"{module}.".startswith("tldet."):
                found.add(PROVIDERS.get((registry.name, name), module))
    return sorted(found - {"__main__"})


def require_components(path: str | Path, state: Mapping[str, Any], *within: str) -> None:
    """Check that all components in the config of a checkpoint are registered.

    Args:
        path: the checkpoint, for the message.
        state: its content; ``meta.imports`` lists the imports that it needs.
        within: see :func:`components`.

    Raises:
        CheckpointError: a component is not registered; the message names the imports that would register it.
    """
    config, meta = state.get("config"), state.get("meta")
    used = components(config, *within) if isinstance(config, Mapping) else ()
    missing = [f"{registry.name} {name!r}" for registry, name in used if lookup(registry, name) is None]
    if not missing:
        return
    stated: Any = meta.get("imports") if isinstance(meta, Mapping) else None
    named = stated if isinstance(stated, (list, tuple)) else []
    modules = [name for name in named if isinstance(name, str) and MODULE.fullmatch(name)]
    raise CheckpointError(
        f"{path}: needs external code ({', '.join(dict.fromkeys(missing))}) which is never imported automatically; "
        f"{_advice(modules)}"
    )


def _advice(modules: Sequence[str]) -> str:
    if not modules:
        return f"allow it with {OPTION} PACKAGE, or in Python import the package that registers it first"
    options = " ".join(f"{OPTION} {name}" for name in modules)
    return f"if you trust it, add {options} (in Python: import {', '.join(modules)})"
