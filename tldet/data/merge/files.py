"""Where the images of a merged data set are: left where they were, or copied."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from tldet.errors import DataError
from tldet.system.inputs import real_path
from tldet.system.output import Replacement, make_folder


def reference(paths: Sequence[Path], folder: Path) -> list[str]:
    """File names that lead from ``folder`` to the images, with forward slashes on every system.

    Relative, with all links followed: ``..`` leads out of a folder's real place. On another drive of Windows absolute.
    """
    base = real_path(folder)
    real: dict[Path, Path] = {}  # an image's own link is no matter, its folder's is
    names = []
    for path in paths:
        if path.parent not in real:
            real[path.parent] = _seen_from(base, real_path(path.parent))
        names.append((real[path.parent] / path.name).as_posix())
    return names


def _seen_from(base: Path, folder: Path) -> Path:
    try:
        return Path(os.path.relpath(folder, base))
    except ValueError:  # another drive
        return folder


def copy_names(folders: Sequence[str], file_names: Sequence[str], taken: set[str]) -> list[str]:
    """Names for copies, ``images/FOLDER/FILE_NAME``, inside the folder and no two alike, whatever the case.

    Args:
        folders: for every image, of its part and input.
        file_names: of every image in its input.
        taken: lower-case names of earlier copies; the new ones are added.
    """
    names = []
    for folder, file_name in zip(folders, file_names, strict=True):
        parts = PurePosixPath(Path(file_name).as_posix()).parts
        inside = [part.replace(":", "_") for part in parts if part.strip("/") not in ("", "..")]
        wanted = PurePosixPath("images", folder, *inside)
        name, number = wanted, 1
        while str(name).lower() in taken:
            number += 1
            name = wanted.with_name(f"{wanted.stem}_{number}{wanted.suffix}")
        taken.add(str(name).lower())
        names.append(str(name))
    return names


def copy_image(path: Path, target: Path) -> None:
    """Copy one file; its folder is made.

    Raises:
        DataError: it cannot be read or written.
    """
    make_folder(target.parent)
    try:
        with Replacement(target, sync=False) as copy:
            shutil.copyfile(path, copy.name)
    except OSError as error:
        raise DataError(f"{target}: cannot be copied from {path} ({error.strerror}); mend it and merge again") from None
