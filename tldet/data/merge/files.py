"""Image files of a merged dataset: referenced in place, or copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tldet.errors import DataError
from tldet.system.inputs import real_path
from tldet.system.output import Replacement, make_folder


def reference(paths: Sequence[Path], folder: Path) -> list[str]:
    """Return file names relative to ``folder``, with forward slashes on every system.

    All links are followed, since ``..`` refers to the parent of the real folder. The names are absolute on another
    Windows drive.
    """
    base = real_path(folder)
    real: dict[Path, Path] = {}  # links of folders matter, those of images do not
    names = []
    for path in paths:
        if path.parent not in real:
            real[path.parent] = _relative(base, real_path(path.parent))
        names.append((real[path.parent] / path.name).as_posix())
    return names


def _relative(base: Path, folder: Path) -> Path:
    try:
        return Path(os.path.relpath(folder, base))
    except ValueError:  # another drive
        return folder


def copy_names(folders: Sequence[str], file_names: Sequence[str], taken: set[str]) -> list[str]:
    """Return names for copies, ``images/FOLDER/FILE_NAME``, which differ in more than letter case.

    Args:
        folders: folder of each image, made from its split and input.
        file_names: file name of each image in its input.
        taken: lower-case names of earlier copies; the new ones are added.
    """
    names = []
    for folder, file_name in zip(folders, file_names, strict=True):
        parts = PurePosixPath(Path(file_name).as_posix()).parts
        inside = [part.replace(":", "_") for part in parts if part.strip("/") not in ("", "..")]
        preferred = PurePosixPath("images", folder, *inside)
        name, number = preferred, 1
        while str(name).lower() in taken:
            number += 1
            name = preferred.with_name(f"{preferred.stem}_{number}{preferred.suffix}")
        taken.add(str(name).lower())
        names.append(str(name))
    return names


def copy_image(path: Path, target: Path) -> None:
    """Copy an image file, and create its folder.

    Raises:
        DataError: the file cannot be read or written.
    """
    make_folder(target.parent)
    try:
        with Replacement(target, sync=False) as copy:
            shutil.copyfile(path, copy.name)
    except OSError as error:
        raise DataError(f"{target}: cannot be copied from {path} ({error.strerror}); merge again") from None
