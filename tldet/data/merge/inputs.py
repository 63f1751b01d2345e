"""The JSON files of the data sets to merge, and where their images are."""

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

_AUTO = SourceOptions()
_OPTIONS = {
    **dict.fromkeys(SPLIT_NAMES, "leave one of them in the folder, or give the JSON files instead of the folder"),
    "images": "give the JSON files instead of the folder, each with --images",
}


@dataclass(frozen=True)
class MergeInput:
    """One JSON of an input: what its copies' folder is called, the part it goes to, and where it is."""

    label: str
    part: str
    split: Split


def find_inputs(inputs: Sequence[Path], images: Sequence[Path], source: SourceOptions = _AUTO) -> list[MergeInput]:
    """Every JSON of the inputs: a folder's parts, or the file itself, which is to train on.

    Annotations in another format are read and written as COCO JSON to the cache first.

    Args:
        inputs: annotation files and data folders.
        images: image folder of the files: one for all or one for each; none looks around them.
        source: format of the inputs.

    Raises:
        DataError: there are fewer than two inputs, one is not there or given twice, or ``images`` do not fit.
    """
    if len(inputs) < 2:
        raise DataError("give two data sets or more to merge")
    files = [path for path in inputs if not is_folder(path)]
    if images and (not files or len(images) not in (1, len(files))):
        raise DataError(f"--images is given {len(images)} times for {len(files)} JSON files: give it once, or for each")
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
    _refuse_twice([one.split.annotations for one in found])
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


def _refuse_twice(paths: Sequence[Path]) -> None:
    real = [real_path(path) for path in paths]
    for number, path in enumerate(real):
        if path in real[:number]:
            raise DataError(f"{paths[number]}: is given twice")
