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
FURTHER = {  # not names of folders
    "train": ("trains", "minitrain"),
    "val": ("vals", "validate", "validating", "minival", "heldout"),
    "test": ("tests", "minitest"),
}
_WORDS = {kind: re.compile(f"(?:{'|'.join(names + FURTHER[kind])}){ENDINGS}") for kind, names in KINDS.items()}


def splits_in(text: str) -> set[str]:
    """Splits that the words of a name state: ``{"train"}`` for ``instances_train2017`` and ``myTrainA``.

    ``test-dev`` is a test split; ``trainval`` states none.
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower()
    words = [word for part in (text.lower(), apart) for word in re.split(r"[^a-z]+", part) if word]
    found = {kind for kind, pattern in _WORDS.items() if any(pattern.fullmatch(word) for word in words)}
    return found - {"val"} if "test" in found and "dev" in words else found


def split_of(path: Path, root: Path) -> str | None:
    """Split of an annotation file by its name and those of its folders below ``root``.

    None if they state no split, several, or contradict each other.
    """
    folders = path.parent.relative_to(root).parts if path.is_relative_to(root) else (path.parent.name,)
    found = set().union(*(splits_in(name) for name in (path.name.partition(".json")[0], *folders)))
    return found.pop() if len(found) == 1 else None
