"""Build hook of tldet-runtime, which packages the folder ``tldet/runtime`` as ``tldet_runtime``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent


def source() -> Path:
    """Return the folder with the package: that of a source distribution, or ``tldet/runtime`` in the repository."""
    inside = HERE / "tldet_runtime"
    return inside if inside.is_dir() else HERE.parent / "tldet" / "runtime"


def version() -> str:
    """Return ``__version__`` of the package."""
    found = re.search(r'^__version__ = "(.+)"$', (source() / "__init__.py").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    return found[1]


class CustomBuildHook(BuildHookInterface):
    """Add the package, with ``py.typed``, to the wheel and to the source distribution."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002
        """Include the files of the package."""
        for path in source().glob("*"):
            if path.suffix == ".py" or path.name == "py.typed":
                build_data["force_include"][str(path)] = f"tldet_runtime/{path.name}"
