"""Classes of a checkpoint of another toolkit: names, and category ids of its dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from tldet.errors import ConfigError
from tldet.text import counted
from tldet.transfer.interop.known import Known

BACKGROUND_NAME = "__background__"
COCO = "FasterRCNN_ResNet50_FPN_Weights.COCO_V1"  # torchvision weights that list the categories of COCO


@dataclass(frozen=True)
class FileClasses:
    """Name and category id of each label, and their source; ``invented`` names are numbers."""

    names: tuple[str, ...]
    ids: tuple[int, ...]
    source: str
    invented: bool = False

    @property
    def given(self) -> tuple[str | None, ...]:
        """Names for matching classes; None for each class if the names are invented."""
        return (None,) * len(self.names) if self.invented else self.names


@cache
def coco_rows() -> tuple[str, ...]:
    """Return the distinct names of COCO's category ids 0 to 90 in torchvision's weights.

    Id 0 is background. Ten ids have no category and are named ``N/A 12`` and so on.
    """
    import torchvision

    names = torchvision.models.get_weight(COCO).meta["categories"]
    return tuple(f"N/A {number}" if name == "N/A" else name for number, name in enumerate(names))


def coco_ids() -> dict[str, int]:
    """Return the category ids of the 80 categories of COCO by name."""
    return {name: i for i, name in enumerate(coco_rows()) if i and not name.startswith("N/A ")}


def classes_of(known: Known, content: Mapping[Any, Any], count: int, given: Sequence[str] = ()) -> FileClasses:
    """Return the classes of a checkpoint of another toolkit.

    Args:
        known: the model.
        content: plain values of the file.
        count: number of classes, including background only if tldet's classifier has a row for it.
        given: user-specified class names in the order of the rows of the classifier; empty for those of the file.

    Raises:
        ConfigError: the number of names in ``given`` is wrong.
    """
    if given:
        return _given_classes(given, count, background=known.dialect == "torchvision" and "rcnn" not in known.case)
    if known.dialect == "torchvision":
        return _torchvision_classes(count, first=1 if "rcnn" in known.case else 0)
    names = _mmdet_names(content)
    if len(names) == count:
        return _with_ids(names)
    unnamed = f"the file names {len(names)} for {count}" if names else "the file names none"
    if count == len(coco_ids()):
        return FileClasses(tuple(coco_ids()), tuple(coco_ids().values()), f"COCO's ({unnamed})")
    return FileClasses(*_numbered(range(1, count + 1)), f"numbered ({unnamed})", invented=True)


def _given_classes(names: Sequence[str], count: int, *, background: bool) -> FileClasses:
    """Return user-specified names; background, the first row of torchvision's one-stage models, may be omitted.

    Raises:
        ConfigError: the number of names is wrong.
    """
    if background and len(names) == count - 1:
        named = _with_ids(tuple(names))
        return FileClasses((BACKGROUND_NAME, *named.names), (0, *named.ids), "--classes, after background")
    if len(names) != count:
        besides = f" (or {count - 1} without background)" if background else ""
        raise ConfigError(
            f"--classes: {counted(len(names), 'name')} for a model with {counted(count, 'class', 'classes')}{besides}"
        )
    return replace(_with_ids(tuple(names)), source="--classes")


def _torchvision_classes(count: int, first: int) -> FileClasses:
    """Return torchvision's classes, whose labels are category ids: those of COCO if there are 91 with background."""
    ids, rows = range(first, first + count), coco_rows()
    if first + count == len(rows):
        return FileClasses(rows[first:], tuple(ids), "COCO's, labels are COCO's category ids (ten of them are unused)")
    names, numbers = _numbered(ids)
    if first == 0:
        names = (BACKGROUND_NAME, *names[1:])
    return FileClasses(names, numbers, "numbered (torchvision's files name none)", invented=True)


def _numbered(ids: Sequence[int]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    return tuple(f"class {number}" for number in ids), tuple(ids)


def _with_ids(names: tuple[str, ...]) -> FileClasses:
    """Add category ids to names: those of COCO if all names are categories of COCO, otherwise 1 to K."""
    known = coco_ids()
    if set(names) <= known.keys():
        return FileClasses(names, tuple(known[name] for name in names), "the file's own names, COCO's category ids")
    ids = tuple(range(1, len(names) + 1))
    return FileClasses(names, ids, f"the file's own names, category ids 1 to {len(names)}")


def _mmdet_names(content: Mapping[Any, Any]) -> tuple[str, ...]:
    """Return the names in ``meta.CLASSES`` (mmdet 2.x) or ``meta.dataset_meta`` (3.x); empty if there are none."""
    meta, hub = content.get("meta"), content.get("message_hub")
    info = hub.get("runtime_info") if isinstance(hub, Mapping) else None
    sections = [meta, *(part.get("dataset_meta") for part in (meta, info) if isinstance(part, Mapping))]
    for section in sections:
        for key in ("classes", "CLASSES"):
            found = section.get(key) if isinstance(section, Mapping) else None
            if isinstance(found, str):
                return (found,)  # ``CLASSES = ('balloon')`` is a string
            if isinstance(found, (list, tuple)) and found and all(isinstance(name, str) for name in found):
                return tuple(found)
    return ()
