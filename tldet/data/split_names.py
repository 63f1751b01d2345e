"""Names of splits, and the split that a file or folder name states."""

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
    """Splits that the words of a name state: ``{"train"}`` for ``instances_train2017``.

    ``test-dev`` is a test split; ``trainval`` states none.
    """
    words = [word for word in re.split(r"[^a-z]+", text.lower()) if word]
    found = {kind for kind, pattern in _WORDS.items() if any(pattern.fullmatch(word) for word in words)}
    return found - {"val"} if "test" in found and "dev" in words else found


def split_of(path: Path, root: Path) -> str | None:
    """Split of an annotation file by its name, or else by its folder's name below ``root``.

    None if they state no split, several, or contradict each other.
    """
    stated = [splits_in(path.stem)]
    if path.parent != root:
        stated.append(splits_in(path.parent.name))
    found = set().union(*stated)
    return found.pop() if len(found) == 1 else None
