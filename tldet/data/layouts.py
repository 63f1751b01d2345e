"""Annotation files and image folders of the splits of a COCO-format folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tldet.coco.recognize import Content, examine
from tldet.data.file_names import is_hidden
from tldet.data.image_folders import find_images
from tldet.data.split_names import name_with_split, split_of
from tldet.errors import DataError
from tldet.system.inputs import entry_kind, is_file, is_folder, real_path

log = logging.getLogger(__name__)
SHOWN = 8  # files in a message
_DEPTH = 2  # levels of folders searched below the data folder
RUN = "config.py"  # file of the output directory of a run, which is not searched
PACKED = (".json.gz", ".json.zip", ".json.bz2", ".json.xz", ".json.zst")
COMPANIONS = ("person_keypoints_", "stuff_")  # COCO's other annotations of the images of an instances_*.json
LOOKED_FOR = (
    "looked for annotations/*.json, {train,valid,test}/_annotations.coco.json and one *.json; a COCO JSON has images, "
    "annotations and categories"
)
_OPTIONS = {
    "train": "choose one with --train",
    "val": "choose one with --val",
    "test": "leave one of them in the folder, or use --train, --val and --images instead of the folder",
    "unclear": "use --train and --val",
}


@dataclass(frozen=True)
class Split:
    """One split of a dataset: its JSON and the image folder."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class Layout:
    """The splits of a dataset; None for a missing split."""

    train: Split
    val: Split | None = None
    test: Split | None = None


@dataclass(frozen=True)
class Candidate:
    """A JSON file of a data folder, the split in its name, and the result of examining its content."""

    path: Path
    split: str | None
    content: Content

    @property
    def usable(self) -> bool:
        """True if the file holds object annotations."""
        return not self.content.problem


@dataclass(frozen=True)
class AnnotationFiles:
    """The annotation files of a folder, by split.

    A file of one split is never used for another split, and a damaged file is never skipped silently.

    Attributes:
        folder: the data folder.
        candidates: the JSON files in the folder.
        options: advice in messages if several files fit, by split.
    """

    folder: Path
    candidates: Sequence[Candidate]
    options: Mapping[str, str]

    @classmethod
    def find(
        cls, folder: Path, chosen: Collection[Path] = (), options: Mapping[str, str] = _OPTIONS
    ) -> AnnotationFiles:
        """Search a folder and its subfolders; hidden files and folders and ``__MACOSX`` are skipped.

        A file with several names (links) counts once.

        Args:
            folder: the data folder.
            chosen: files that the user has assigned to a split, which are not candidates for other splits.
            options: advice in messages; see the class.

        Raises:
            DataError: the name of a file states different splits.
        """
        taken = {real_path(path) for path in chosen}
        names: dict[Path, list[Path]] = {}
        for path in _json_files(folder, _DEPTH):
            names.setdefault(real_path(path), []).append(path)
        chosen_names = [name_with_split(folder, paths) for real, paths in names.items() if real not in taken]
        return cls(folder, [Candidate(path, split_of(path, folder), examine(path)) for path in chosen_names], options)

    def train(self) -> Path:
        """Return the training annotations: the file named after this split, or the only file.

        Raises:
            DataError: no file or several files fit, or the file is damaged.
        """
        if path := self._named("train"):
            return path
        damaged = [one for one in self.candidates if one.split is None and one.content.damaged]
        if damaged:
            raise DataError(f"{self._found(damaged[0])}; repair or remove it, or {self.options['unclear']}")
        usable = [one for one in self.candidates if one.usable]
        if not usable:
            raise DataError(f"{self.folder}: contains no COCO JSON{self._instead()} ({LOOKED_FOR})")
        if len(usable) > 1 and any(one.split is None for one in usable):
            names = self._list(usable)
            raise DataError(f"{self.folder}: cannot tell which JSON to train on ({names}); {self.options['unclear']}")
        if usable[0].split is not None:
            raise DataError(
                f"{self.folder}: has no training annotations, only {self._list(usable)} of other splits; "
                f"{self.options['unclear']}"
            )
        return usable[0].path

    def val(self, train: Path | None = None) -> Path | None:
        """Return the validation annotations; None if there are none.

        Args:
            train: the training annotations if found in this folder.

        Raises:
            DataError: the file is damaged, several files fit, or the split of a further file is unclear.
        """
        if path := self._named("val"):
            return path
        rest = [one for one in self.candidates if one.split is None and (one.usable or one.content.damaged)]
        unclear = [] if train is None else [one for one in rest if one.path != train]
        if unclear:
            raise DataError(
                f"{self.folder}: cannot tell which split {self._list(unclear)} belongs to; name it after its "
                f"split, remove it, or {self.options['unclear']}"
            )
        return None

    def test(self) -> Path | None:
        """Return the test annotations; None if there are none.

        Raises:
            DataError: the file is damaged, or several files fit.
        """
        return self._named("test")

    def needed(self) -> list[Candidate]:
        """Return the usable and the damaged files, and train and val files without a usable file of their split."""
        replaced = {one.split for one in self.candidates if one.usable}
        own = {"train", "val"} - replaced
        return [one for one in self.candidates if one.usable or one.content.damaged or one.split in own]

    def _named(self, split: str) -> Path | None:
        own = [one for one in self.candidates if one.split == split]
        for one in own:
            if one.content.damaged:
                raise DataError(f"{self._found(one)}; repair or remove it")
        usable = self._instances([one for one in own if one.usable])
        if len(usable) > 1:
            named = self._list(usable)
            raise DataError(f"{self.folder}: several files hold {split} annotations: {named}; {self.options[split]}")
        for one in own:
            if not one.usable and (usable or split == "test"):
                log.info("%s", self._found(one))
            elif not one.usable:
                raise DataError(f"{self._found(one)}; replace it with COCO annotations or remove it")
        return usable[0].path if usable else None

    def _instances(self, found: Sequence[Candidate]) -> list[Candidate]:
        """Drop COCO's other annotations of the same images beside ``instances_*.json``."""
        paths, kept = {one.path for one in found}, []
        for one in found:
            start = next((start for start in COMPANIONS if one.path.name.startswith(start)), None)
            twin = start and one.path.with_name(f"instances_{one.path.name.removeprefix(start)}")
            if twin in paths:
                log.info("%s: not used, because %s contains the objects of the same images", one.path, twin)
            else:
                kept.append(one)
        return kept

    def _list(self, found: Sequence[Candidate]) -> str:
        names = [one.path.relative_to(self.folder).as_posix() for one in found]
        return ", ".join(names[:SHOWN]) + (f", ... ({len(names)} files)" if len(names) > SHOWN else "")

    def _instead(self) -> str:
        others = [f"{one.path.relative_to(self.folder)} {one.content.problem}" for one in self.candidates]
        return f"; {'; '.join(others[:3])}{'; ...' if len(others) > 3 else ''}" if others else ""

    @staticmethod
    def _found(one: Candidate) -> str:
        return f"{one.path}: {one.content.problem}"


def _json_files(folder: Path, depth: int) -> Iterator[Path]:
    """Yield the JSON files of a folder, then of its subfolders, sorted; packed files only if no unpacked one exists."""
    files, folders = _entries(folder)
    yield from files
    for below in folders if depth else ():
        if not is_file(below / RUN):
            yield from _json_files(below, depth - 1)


def _entries(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the sorted JSON files and subfolders of a folder without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            visible = [entry for entry in entries if not is_hidden(entry.name)]
            folders = {entry.name for entry in visible if entry_kind(entry) == "folder"}
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    files = {entry.name for entry in visible if entry.name.lower().endswith((".json", *PACKED))} - folders
    files -= {name for name in files if name.lower().endswith(PACKED) and name.rpartition(".")[0] in files}
    return [folder / name for name in sorted(files)], [folder / name for name in sorted(folders)]


def find_layout(folder: Path, images: Path | None = None, options: Mapping[str, str] = _OPTIONS) -> Layout:
    """Find the splits of a COCO-format folder.

    ``train``, ``valid`` and ``test`` folders with a JSON in each (Roboflow); JSON files named by split in the folder,
    in ``annotations/`` or any other one below it (COCO); or a single JSON. Files are recognized by their content.

    Args:
        folder: the data folder.
        images: image folder of all splits; None searches for it.
        options: advice in messages if several files fit, by split; ``images`` for several image folders.

    Raises:
        DataError: no file or several files fit, or a file is damaged; the message names the files.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder")
    files = AnnotationFiles.find(folder, options=options)
    train = files.train()
    paths = {"train": train, "val": files.val(train), "test": files.test()}
    advice = options.get("images", "choose one with --images")
    splits = {
        name: Split(path, images or find_images(path, folder, advice=advice)) for name, path in paths.items() if path
    }
    return Layout(splits["train"], splits.get("val"), splits.get("test"))
