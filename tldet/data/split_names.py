"""Names of splits, and their recognition in file and folder names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tldet.errors import DataError

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"),
    "test": ("test", "testing"),
}
ENDINGS = "(?:set|data|split|images|imgs|annotations|labels|coco)?"
FURTHER = {  # not names of folders
    "train": ("trains", "minitrain"),
    "val": ("vals", "validate", "validating", "minival", "heldout"),
    "test": ("tests", "minitest"),
}
_WORDS = {kind: re.compile(f"(?:{'|'.join(names + FURTHER[kind])}){ENDINGS}") for kind, names in SPLIT_NAMES.items()}


def splits_in(text: str) -> set[str]:
    """Return the splits in a file or folder name: ``{"train"}`` for ``instances_train2017`` and ``myTrainA``.

    ``test-dev`` is a test split; ``trainval`` names no split.
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    words = [word for part in (text.lower(), apart) for word in re.split(r"[^a-z]+", part) if word]
    found = {kind for kind, pattern in _WORDS.items() if any(pattern.fullmatch(word) for word in words)}
    return found - {"val"} if "test" in found and "dev" in words else found


def split_of(path: Path, root: Path) -> str | None:
    """Return the split named by an annotation file and its folders below ``root``.

    None if the two names contain no split, several, or different ones.
    """
    folders = path.parent.relative_to(root).parts if path.is_relative_to(root) else (path.parent.name,)
    found = set().union(*(splits_in(name) for name in (path.name.partition(".json")[0], *folders)))
    return found.pop() if len(found) == 1 else None


def name_with_split(folder: Path, paths: Sequence[Path]) -> Path:
    """Return the first path of a linked file that names its split, or else the first path.

    Raises:
        DataError: the paths name different splits.
    """
    stated = {split: path for path in reversed(paths) if (split := split_of(path, folder))}
    if len(stated) > 1:
        named = ", ".join(f"{path} ({split})" for split, path in reversed(stated.items()))
        raise DataError(f"{folder}: one file is linked as several splits: {named}; give each split its own file")
    return next(iter(stated.values()), paths[0])
