"""Checks of output paths before a command starts: they can be written, and replace no input and no earlier output."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from tldet.errors import OutputError
from tldet.system.inputs import is_file, is_folder, real_path
from tldet.system.locks import is_unused
from tldet.system.output import Replacement, naming, path_text


def check_outputs(
    files: Iterable[str | Path | None],
    kept: Iterable[object] = (),
    *,
    overwrite: bool,
    folders: Iterable[str | Path | None] = (),
) -> None:
    """Check the outputs of a command; create the folders of the files.

    Args:
        files: output files; None is ignored.
        kept: see :func:`check_output`.
        overwrite: replace existing files, and write to folders that are not empty.
        folders: output folders; None is ignored.

    Raises:
        OutputError: a file cannot be written, is one of ``kept`` or given twice; or an output exists and ``overwrite``
            is False.
    """
    paths, kept = [path for path in files if path], list(kept)
    refuse_same(paths)
    for path in paths:
        check_output(path, kept)
    if not overwrite:
        refuse_existing(paths, [folder for folder in folders if folder])


def refuse_existing(files: Iterable[str | Path], folders: Iterable[str | Path] = ()) -> None:
    """Reject files that exist and folders that are not empty.

    Raises:
        OutputError: there is an earlier output, or a file of the user.
    """
    for path in files:
        if is_file(path):
            raise OutputError(f"{path_text(path)}: already exists; choose another path, or replace it with --overwrite")
    for folder in folders:
        if is_folder(folder) and not is_unused(Path(folder)):
            raise OutputError(
                f"{path_text(folder)}: is not empty; choose another folder, or write to it with --overwrite"
            )


def check_output(path: str | Path, kept: Iterable[object] = ()) -> None:
    """Check that a file can be written before its content is computed; create its folder.

    Args:
        path: the file.
        kept: files that the output must not replace, such as the inputs; values that are not paths are ignored.

    Raises:
        OutputError: the file cannot be written, or is one of ``kept``.
    """
    refuse_kept(path, {real_path(one) for one in kept if isinstance(one, str | os.PathLike)})
    with naming(path):
        Replacement(path).discard()


def refuse_kept(path: str | Path, kept: Collection[Path]) -> None:
    """Reject an output that is an input of the command.

    Args:
        path: the output.
        kept: real paths of the inputs, see :func:`~tldet.system.inputs.real_path`.

    Raises:
        OutputError: the output is an input.
    """
    if real_path(path) in kept:
        raise OutputError(f"{path_text(path)}: is an input and would be overwritten; choose another output path")


def refuse_same(paths: Iterable[str | Path]) -> None:
    """Reject two outputs of a command with the same path.

    Raises:
        OutputError: two paths name the same file.
    """
    seen: set[Path] = set()
    for path in paths:
        if real_path(path) in seen:
            raise OutputError(f"{path_text(path)}: is given for two outputs; choose different paths")
        seen.add(real_path(path))
