"""Labels of an annotation index that follow the classes of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from tldet.coco.checks import NAMED, shortened
from tldet.coco.names import fold
from tldet.errors import DataError
from tldet.text import counted

if TYPE_CHECKING:
    from tldet.data.index import AnnotationIndex


def index_for_classes(index: AnnotationIndex, classes: Sequence[str]) -> AnnotationIndex:
    """Return an index with other class names; objects of further classes are left out and counted.

    A class that the JSON does not have counts as not annotated on any image.

    Args:
        index: the annotations.
        classes: class names of a model, which the labels follow.

    Raises:
        DataError: the JSON has none of the classes.
    """
    if any(name in classes and name not in index.class_names for name, _ in index.unused):
        return index_for_classes(_with_unused(index), classes)
    common = [name for name in classes if name in index.class_names]
    if not common:
        own, others = shortened(index.class_names, 8), shortened(list(classes), 8)
        hint = _case_hint(index.class_names, classes)
        raise DataError(
            f"{index.path}: annotations and model share no class (annotations: {own}; model: {others}){hint}"
        )
    if tuple(classes) == index.class_names:
        return index
    table = np.array([classes.index(n) if n in classes else -1 for n in index.class_names], np.int64)
    ids = tuple(index.category_ids[index.class_names.index(n)] if n in index.class_names else -1 for n in classes)
    labels = table[index.labels]
    labeled = _labeled_for(index, classes)
    found = replace(index, labels=labels, labeled=labeled, class_names=tuple(classes), category_ids=ids)
    if (labels < 0).any():
        found = found.keep(labels >= 0)
    unknown = sorted(set(index.class_names) - set(classes))
    count, named = counted(int((labels < 0).sum()), "object"), ", ".join(unknown[:NAMED])
    line = f"{count} left out: the model does not have their classes ({named}){_case_hint(unknown, classes)}"
    return replace(found, notes=(*found.notes, line)) if unknown else found


def _case_hint(names: Iterable[str], classes: Sequence[str]) -> str:
    """Name the first class that is one of the model in another case, Unicode form or with spaces; empty if none is."""
    folded = {fold(name.strip()): name for name in classes}
    pairs = ((name, folded.get(fold(name.strip()))) for name in names)
    return next((f"; {name!r} and {found!r} must be spelled alike" for name, found in pairs if found), "")


def _with_unused(index: AnnotationIndex) -> AnnotationIndex:
    """Add the dropped supercategory entry as a class without objects, for a model that has this class."""
    names, ids = zip(*index.unused, strict=True)
    column = np.ones((len(index), len(names)), np.bool_)
    labeled = None if index.labeled is None else np.concatenate([index.labeled, column], 1)
    return replace(
        index,
        class_names=(*index.class_names, *names),
        category_ids=(*index.category_ids, *ids),
        labeled=labeled,
        unused=(),
    )


def _labeled_for(index: AnnotationIndex, classes: Sequence[str]) -> NDArray[np.bool_] | None:
    known = np.array([name in index.class_names for name in classes])
    if index.labeled is None:
        return None if known.all() else np.broadcast_to(known, (len(index), len(known)))
    columns = [index.class_names.index(name) if name in index.class_names else 0 for name in classes]
    return np.asarray(index.labeled[:, columns] & known)
