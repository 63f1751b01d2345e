"""Search for the image folder of an annotation file: the folder that holds all its images."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from tldet.data.file_names import Listing, variants
from tldet.data.index import AnnotationIndex
from tldet.data.split_names import SPLIT_NAMES, split_of, splits_in
from tldet.errors import DataError
from tldet.system.inputs import is_folder, real_path
from tldet.text import counted

log = logging.getLogger(__name__)
_DEPTH = 3  # levels of folders searched below the data folder
_SHOWN = 6  # folders in a message
PARTIAL = 0.5  # least fraction of the images in a folder that is chosen because no folder holds all


def find_images(
    annotations: Path,
    root: Path,
    *,
    ending: Path | None = None,
    advice: str = "choose one with --images",
    names: Sequence[str] | None = None,
) -> Path:
    """Find the folder that holds all images of a JSON.

    Folders below ``root`` and around the JSON are searched, then the siblings of the JSON's folder. A folder named
    after another split is used only if no other folder holds the images, and a folder that lacks some images only if no
    folder holds all.

    Args:
        annotations: the JSON.
        root: the data folder.
        ending: end of the folder's path (``images`` for ``train/images``); None takes any folder.
        advice: what to do if several folders fit, for the message.
        names: file names of the images, if they are already read.

    Raises:
        DataError: no folder holds the images, or several do and none is preferred.
    """
    if not is_folder(root):
        raise DataError(f"{root}: no such folder")
    names = list(AnnotationIndex.load(annotations).file_names) if names is None else names
    return _Search(annotations, root, names, advice).run(ending)


class _Search:
    """A search for the images of one JSON."""

    def __init__(self, annotations: Path, root: Path, names: Sequence[str], advice: str) -> None:
        self.annotations, self.root, self.names, self.advice = annotations, root, names, advice
        self.listing = Listing()
        self.split = split_of(annotations, root) or next(
            (kind for kind, words in SPLIT_NAMES.items() if annotations.parent.name.lower() in words), None
        )

    def run(self, ending: Path | None) -> Path:
        inside = list(self._tree(self.root, _DEPTH))
        if not real_path(self.annotations).is_relative_to(real_path(self.root)):
            inside += self._tree(self.annotations.parent, _DEPTH)
        stages = [inside, list(self._around(self.annotations.parent.parent))]
        if all(Path(name).is_absolute() for name in self.names):
            stages = [[self.annotations.parent], *stages]
        if ending is not None:
            parts = ending.parts
            stages = [[folder for folder in stage if folder.parts[-len(parts) :] == parts] for stage in stages]
            if not any(stages):
                raise DataError(f"--images {ending}: no such folder")
        for others in (False, True):
            for stage in stages:
                chosen = [folder for folder in stage if others or not self._of_other(folder)]
                if found := self._whole(chosen) or self._most(chosen):
                    return found
        raise self._nowhere(list(dict.fromkeys(folder for stage in stages for folder in stage)))

    def _tree(self, folder: Path, depth: int) -> Iterator[Path]:
        yield folder
        if depth:
            for name in self.listing.folders(os.fspath(folder)):
                yield from self._tree(folder / name, depth - 1)

    def _around(self, parent: Path) -> Iterator[Path]:
        """Yield a folder above the JSON, its subfolders, and the usual image folders below it."""
        yield from self._tree(parent, 1)
        for word in (self._stem(), *SPLIT_NAMES.get(self.split or "", ())):
            yield from (parent / "images" / word, parent / word / "images")

    def _stem(self) -> str:
        return self.annotations.stem.removeprefix("instances_")

    def _whole(self, folders: Sequence[Path]) -> Path | None:
        for names in variants(self.names):
            found = [folder for folder in folders if self.listing.count(folder, names) == names.distinct]
            if found:
                return self._only(
                    found, "the only image" if names.distinct == 1 else f"all {counted(names.distinct, 'image')}"
                )
        return None

    def _most(self, folders: Sequence[Path]) -> Path | None:
        """Return the folder with most of the images; the dataset reports the missing ones."""
        most, total, best = self._best(folders)
        return self._only(best, f"{most} of {counted(total, 'image')}") if most >= PARTIAL * total else None

    def _best(self, folders: Sequence[Path]) -> tuple[int, int, list[Path]]:
        """Return the most images in one folder, the number of all images, and the folders with the most images."""
        most, total, best = 0, len(set(self.names)), list[Path]()
        for names in variants(self.names):
            counts = {folder: self.listing.count(folder, names) for folder in folders}
            if (highest := max(counts.values(), default=0)) > most:
                most, best = highest, [folder for folder, count in counts.items() if count == highest]
        return most, total, best

    def _nowhere(self, folders: Sequence[Path]) -> DataError:
        most, total, best = self._best(folders)
        held = f" (best: {most} of {counted(total, 'image')} in {best[0]})" if most else ""
        return DataError(
            f"{self.annotations}: images ({self.names[0]}, ...) not found in {_named(folders)}{held}; use --images"
        )

    def _only(self, folders: Sequence[Path], what: str) -> Path:
        """Return the only folder, ignoring folders of other years; raise DataError if several remain."""
        real = list({real_path(folder): folder for folder in reversed(folders)}.values())[::-1]
        best = [folder for folder in real if not any(self._replaces(other, folder) for other in real)]
        if len(best) > 1:
            raise DataError(f"{self.annotations}: several folders hold {what}: {_named(best)}; {self.advice}")
        if self._of_other(best[0]):
            log.warning("%s: images found in %s, a folder named after another split", self.annotations, best[0])
        return best[0]

    def _of_other(self, folder: Path) -> bool:
        """Return True if a folder is named after another split than the JSON."""
        stated = set[str]().union(*(splits_in(part) for part in self._parts(folder)))
        return bool(stated) and self.split is not None and self.split not in stated

    def _replaces(self, one: Path, other: Path) -> bool:
        """Return True if only one part of the paths differs, and ``one`` has the JSON's name there (``train2017``)."""
        pairs = [(a, b) for a, b in zip(self._parts(one), self._parts(other), strict=False) if a != b]
        alike = len(self._parts(one)) == len(self._parts(other)) and len(pairs) == 1
        return alike and pairs[0][0] == self._stem() and bool(splits_in(pairs[0][1]))

    def _parts(self, folder: Path) -> tuple[str, ...]:
        return folder.relative_to(self.root).parts if folder.is_relative_to(self.root) else (folder.name,)


def _named(folders: Collection[Path]) -> str:
    return ", ".join(str(folder) for folder in list(folders)[:_SHOWN]) + (", ..." if len(folders) > _SHOWN else "")
