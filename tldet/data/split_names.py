"""Names of splits, and their recognition in file and folder names."""

from __future__ import annotations

import re
from pathlib import Path

KINDS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev", "eval", "evaluation", "holdout"),
    "test": ("test", "testing"),
}
ENDINGS = "(?:set|data|split|images|imgs|annotations|labels|coco)?"
_WORDS = {kind: re.compile(f"(?:{'|'.join(names)}){ENDINGS}") for kind, names in KINDS.items()}


def splits_in(text: str) -> set[str]:
    """Return the splits in a file or folder name: ``{"train"}`` for ``instances_train2017``.

    ``test-dev`` is a test split; ``trainval`` names no split.
    """
    words = [word for word in re.split(r"[^a-z]+", text.lower()) if word]
    found = {kind for kind, pattern in _WORDS.items() if any(pattern.fullmatch(word) for word in words)}
    return found - {"val"} if "test" in found and "dev" in words else found


def split_of(path: Path, root: Path) -> str | None:
    """Return the split named by an annotation file and its folder below ``root``.

    None if the two names contain no split, several, or different ones.
    """
    stated = [splits_in(path.stem)]
    if path.parent != root:
        stated.append(splits_in(path.parent.name))
    found = set().union(*stated)
    return found.pop() if len(found) == 1 else None
