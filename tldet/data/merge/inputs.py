"""Annotation files and image folders of the datasets to merge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tldet.data.formats.source import SourceOptions, derive, is_foreign
from tldet.data.image_folders import find_images
from tldet.data.layouts import Split, find_layout
from tldet.data.split_names import SPLIT_NAMES
from tldet.errors import DataError
from tldet.system.inputs import exists, is_folder, real_path, require_file
from tldet.text import counted

_AUTO = SourceOptions()
_OPTIONS = {
    **dict.fromkeys(SPLIT_NAMES, "leave one of them in the folder, or use the JSON files instead of the folder"),
    "unclear": "use the JSON files instead of the folder",
    "images": "use the JSON files instead of the folder, each with --images",
}


@dataclass(frozen=True)
class MergeInput:
    """One JSON of an input: name of the folder for copied images, split (part) of the merged dataset, and files."""

    label: str
    part: str
    split: Split


def find_inputs(inputs: Sequence[Path], images: Sequence[Path], source: SourceOptions = _AUTO) -> list[MergeInput]:
    """Return the JSON files of the inputs: the splits of a folder, or a single file as training split.

    Annotations in another format are first read and written to the cache as COCO JSON.

    Args:
        inputs: annotation files and dataset folders.
        images: image folders of the files: one for all, or one for each; empty searches for them.
        source: format of the inputs.

    Raises:
        DataError: there are fewer than two inputs, one is missing or repeated, or the number of ``images`` is wrong.
    """
    if len(inputs) < 2:
        raise DataError("specify two or more datasets to merge")
    files = [path for path in inputs if not is_folder(path)]
    if images and (not files or len(images) not in (1, len(files))):
        given = f"{counted(len(images), 'time')} for {counted(len(files), 'annotation file')}"
        raise DataError(f"--images is given {given}; use it once, or once per file")
    folder_of = dict(zip(files, [*images] * len(files) if len(images) == 1 else images, strict=False))
    found = []
    for number, path in enumerate(inputs, start=1):
        label = f"{number}_{real_path(path).stem}"
        own = folder_of.get(path)
        if exists(path) and is_foreign(path, source):
            splits = [(part or "train", split) for part, split in derive({None: path}, source, None, own).items()]
        else:
            splits = _folder_splits(path) if is_folder(path) else [("train", _file_split(path, own))]
        found += [MergeInput(label, part, split) for part, split in splits]
    _reject_repeated([one.split.annotations for one in found])
    return found


def _folder_splits(folder: Path) -> list[tuple[str, Split]]:
    layout = find_layout(folder, options=_OPTIONS)
    named = zip(SPLIT_NAMES, (layout.train, layout.val, layout.test), strict=True)
    return [(part, split) for part, split in named if split is not None]


def _file_split(path: Path, images: Path | None) -> Split:
    require_file(path, DataError)
    if images is not None and not is_folder(images):
        raise DataError(f"{images}: no such folder")
    return Split(path, images or find_images(path, path.parent))


def _reject_repeated(paths: Sequence[Path]) -> None:
    real = [real_path(path) for path in paths]
    for number, path in enumerate(real):
        if path in real[:number]:
            raise DataError(f"{paths[number]}: occurs twice in the inputs")
