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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from mmengine.registry import Registry

from tldet.errors import ConfigError, TldetError
from tldet.registry import BACKBONES, DATASETS, HEADS, HOOKS, NECKS, OPTIMIZERS, TRANSFORMS

log = logging.getLogger(__name__)
GROUP = "tldet.plugins"  # of entry points
OPTION = "--import"
REGISTRIES = (BACKBONES, NECKS, HEADS, DATASETS, TRANSFORMS, OPTIMIZERS, HOOKS)
MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
PREFIXES: dict[str, dict[str, Callable[[str], Any]]] = {}  # registry name -> prefix -> resolver of the rest of a name
ADAPTERS: dict[str, Callable[[Any], Any]] = {}  # registry name -> converts a registered object to a callable
FOLDERS: list[str] = []  # folders of imported modules that are not found without them
PROVIDERS: dict[tuple[str, str], str] = {}  # (registry, component) -> the import that registered it


def import_plugins(names: Iterable[str], source: str = OPTION, *, search_here: bool = True) -> None:
    """Import external packages, which register their components.

    ``sys.path`` is as before afterwards. Code that imports modules of the same folder later, or starts processes that
    do, needs :func:`search_folders`.

    Args:
        names: modules, or paths of a Python file or package.
        source: option or config key that names them, for messages.
        search_here: also search the current folder, after ``sys.path``.

    Raises:
        ConfigError: a module does not exist or cannot be imported.
    """
    for name in names:
        module, folder = _locate(name, source)
        _remember_folder(module, folder or (os.getcwd() if search_here else None))  # noqa: PTH109
        before = set(_registered())
        with search_folders():
            _import(module, f"{source} {name}")
        for key in set(_registered()) - before:
            PROVIDERS.setdefault(key, module)


def import_named(imports: Any, origin: str) -> None:
    """Import the packages that ``imports`` of a config lists; None imports nothing.

    Raises:
        ConfigError: it is not a list of names, or one of them cannot be imported.
    """
    names = imports or []
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"imports: must be a list of module names, not {imports!r} (in {origin})")
    import_plugins(names, f"imports (in {origin}):")


def _locate(name: str, source: str) -> tuple[str, str | None]:
    """Return the module that a name or path stands for, and the folder of a path."""
    if name.endswith(".py") or "/" in name or os.sep in name:
        path = Path(name).resolve()
        if not path.exists():
            raise ConfigError(f"{source} {name}: no such file or package")
        module, folder = path.stem if path.is_file() else path.name, str(path.parent)
    else:
        module, folder = name, None
    if not MODULE.fullmatch(module):
        raise ConfigError(f"{source} {name}: is not the name of a Python module")
    other = None if folder is None else _origin(module)
    if folder is not None and other and Path(folder) not in Path(other).resolve().parents:
        raise ConfigError(f"{source} {name}: another module is named {module} ({other}); rename the file")
    return module, folder


def _origin(module: str) -> str | None:
    """Return the file of a module that is imported, or would be without further folders."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__file__", None)
    spec = PathFinder.find_spec(module)
    return None if spec is None else spec.origin


def _remember_folder(module: str, folder: str | None) -> None:
    """Add the folder of a module to :data:`FOLDERS`, unless the module is found without it."""
    top = module.partition(".")[0]
    if top in sys.modules or folder is None or PathFinder.find_spec(top) is not None:
        return
    if folder not in FOLDERS and PathFinder.find_spec(top, [folder]) is not None:
        FOLDERS.append(folder)


@contextmanager
def search_folders() -> Iterator[None]:
    """Search the folders of external modules after ``sys.path``, also in processes started in the ``with`` block."""
    added = [folder for folder in FOLDERS if folder not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            if folder in sys.path:
                sys.path.remove(folder)


def _import(module: str, name: str) -> None:
    try:
        import_module(module)
    except TldetError:
        raise
    except ModuleNotFoundError as error:
        if error.name and f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"{name}: no module named {error.name}; install it, specify its path, or run tldet in the folder that "
                "contains it"
            ) from None
        raise ConfigError(f"{name}: needs {error.name}, which is not installed ({_location(error)})") from None
    except Exception as error:
        why = (str(error).splitlines() or [""])[0]
        raise ConfigError(f"{name}: cannot be imported: {type(error).__name__}: {why} ({_location(error)})") from error


def _location(error: BaseException) -> str:
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
        raise ConfigError(f"{error.args[0]}: tldet has a component of this name; rename the external one") from error


def names_in(registry: Registry) -> list[str]:
    """Return the sorted names of a registry's components."""
    _import_own(registry)
    import_entry_points()
    return sorted(registry.module_dict)
