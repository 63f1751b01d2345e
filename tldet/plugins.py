"""External components: packages imported on the user's request, and lookups in the registries.

A package registers its classes when it is imported. It is imported for ``--import``, for ``imports`` in a config, or
because it is installed with an entry point in the group ``tldet.plugins``. A checkpoint only records which packages it
needs: nothing is imported because a checkpoint asks for it.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from tldet.errors import CheckpointError, ConfigError, TldetError
from tldet.registry import BACKBONES, DATASETS, HEADS, HOOKS, NECKS, OPTIMIZERS, TRANSFORMS

log = logging.getLogger(__name__)
GROUP = "tldet.plugins"  # of entry points
OPTION = "--import"
REGISTRIES = (BACKBONES, NECKS, HEADS, DATASETS, TRANSFORMS, OPTIMIZERS, HOOKS)
SECTIONS = {  # config sections that are components
    "model.backbone": BACKBONES,
    "model.neck": NECKS,
    "model.head": HEADS,
    "data.train": DATASETS,
    "data.val": DATASETS,
    "data.test": DATASETS,
    "optimizer": OPTIMIZERS,
}
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
PREFIXES: dict[str, dict[str, Callable[[str], Any]]] = {}  # registry name -> prefix -> resolver of the rest of a name
ADAPTERS: dict[str, Callable[[Any], Any]] = {}  # registry name -> makes a callable of what was registered
_PROVIDERS: dict[tuple[str, str], str] = {}  # (registry, component) -> the import that registered it


def import_plugins(names: Iterable[str], giver: str = OPTION, *, search_here: bool = True) -> None:
    """Import external packages, which register their components.

    Args:
        names: modules, or paths of a Python file or package.
        giver: option or config key that names them, for messages.
        search_here: also find modules in the current folder, after those of ``sys.path``.

    Raises:
        ConfigError: a module does not exist or cannot be imported.
    """
    for name in names:
        module, folder = _located(name, giver)
        _make_findable(module, folder or (os.getcwd() if search_here else None))  # noqa: PTH109
        before = set(_registered())
        _import(module, f"{giver} {name}")
        for key in set(_registered()) - before:
            _PROVIDERS.setdefault(key, module)


def import_named(imports: Any, origin: str) -> None:
    """Import the packages that ``imports`` of a config lists; None imports nothing.

    Raises:
        ConfigError: it is not a list of names, or one of them cannot be imported.
    """
    names = imports or []
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"imports: must be a list of module names, not {imports!r} (in {origin})")
    import_plugins(names, f"imports (in {origin}):")


def _located(name: str, giver: str) -> tuple[str, str | None]:
    """Return the module that a name or path stands for, and the folder of a path."""
    if name.endswith(".py") or "/" in name or os.sep in name:
        path = Path(name).resolve()
        if not path.exists():
            raise ConfigError(f"{giver} {name}: no such file or package")
        module, folder = path.stem if path.is_file() else path.name, str(path.parent)
    else:
        module, folder = name, None
    if not MODULE.fullmatch(module):
        raise ConfigError(f"{giver} {name}: is not the name of a Python module")
    other = None if folder is None else _origin(module)
    if folder is not None and other and Path(folder) not in Path(other).resolve().parents:
        raise ConfigError(f"{giver} {name}: another module is named {module} ({other}); rename the file")
    return module, folder


def _origin(module: str) -> str | None:
    """Return the file of a module that is imported, or would be without further folders."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None)
    spec = PathFinder.find_spec(module)
    return None if spec is None else spec.origin


def _make_findable(module: str, folder: str | None) -> None:
    """Append the folder of a module to ``sys.path``, from where loader processes inherit it, unless it is found."""
    top = module.partition(".")[0]
    if top in sys.modules or folder is None or PathFinder.find_spec(top) is not None:
        return
    if PathFinder.find_spec(top, [folder]) is not None:
        sys.path.append(folder)


def _import(module: str, given: str) -> None:
    try:
        import_module(module)
    except TldetError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{given}: no module named {error.name}; install it, give its path, or run tldet in the folder that "
                "contains it"
            ) from None
        raise ConfigError(f"{given}: needs {error.name}, which is not installed ({_place(error)})") from None
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{given}: cannot be imported: {type(error).__name__}: {why} ({_place(error)})") from error


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((one for one in reversed(frames) if "importlib" not in one.filename), None)
    return "" if frame is None else f"{frame.filename}:{frame.lineno}"


def _registered() -> Iterator[tuple[str, str]]:
    for registry in REGISTRIES:
        yield from ((registry.name, name) for name in registry.module_dict)


@cache
def import_entry_points() -> None:
    """Import the installed packages that declare an entry point in the group ``tldet.plugins``, once."""
    for point in entry_points(group=GROUP):
        try:
            import_plugins([point.module], f"entry point {point.name}:", search_here=False)
        except ConfigError as error:
            log.warning("%s", error)


def lookup(registry: Registry, name: str) -> Any:
    """Return the component that a registry has under a name; None if there is none.

    Raises:
        ConfigError: the name's prefix is known and the rest is not (``A.`` of albumentations).
    """
    _import_own(registry)
    for prefix, resolve in PREFIXES.get(registry.name, {}).items():
        if name.startswith(prefix):
            return resolve(name.removeprefix(prefix))
    if name not in registry.module_dict:
        import_entry_points()
    found = registry.module_dict.get(name)
    adapt = ADAPTERS.get(registry.name)
    return adapt(found) if adapt and found is not None else found


def _import_own(registry: Registry) -> None:
    """Import tldet's own components of a registry."""
    try:
        registry.import_from_location()
    except KeyError as error:
        raise ConfigError(f"{error.args[0]}: external code has taken a name of tldet's own; rename it") from error


def names_in(registry: Registry) -> list[str]:
    """Return the sorted names of a registry's components."""
    _import_own(registry)
    import_entry_points()
    return sorted(registry.module_dict)


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
        provider = _PROVIDERS.get((registry.name, name), module)
        own = module == "tldet" or module.startswith("tldet.")
        if target is not None and not own and provider != "__main__":  # a script is no module that could be imported
            found.append(provider)
    return sorted(set(found))


def external_modules() -> list[str]:
    """Return the modules that have registered components in this process, for processes that it starts."""
    found = set()
    for registry in REGISTRIES:
        for name, target in registry.module_dict.items():
            module = getattr(target, "__module__", None) or "__main__"
            if module != "__main__" and not f"{module}.".startswith("tldet."):
                found.add(_PROVIDERS.get((registry.name, name), module))
    return sorted(found - {"__main__"})


def require_components(path: str | Path, state: Mapping[str, Any], *within: str) -> None:
    """Check that the components which a checkpoint's config names are registered.

    Args:
        path: the checkpoint, for the message.
        state: its content; ``meta.imports`` lists the imports that it needs.
        within: see :func:`components`.

    Raises:
        CheckpointError: one is not; the message names the imports that would register it.
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
        f"{path}: needs external code ({', '.join(dict.fromkeys(missing))}) and does not import it by itself; "
        f"{_advice(modules)}"
    )


def _advice(modules: Sequence[str]) -> str:
    if not modules:
        return f"allow it with {OPTION} PACKAGE, or in Python import the package that registers it first"
    options = " ".join(f"{OPTION} {name}" for name in modules)
    return f"if you trust it, add {options} (in Python: import {', '.join(modules)})"
