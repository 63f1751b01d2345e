"""``AnnotationIndex``: a COCO JSON parsed once into flat arrays, cached on disk, shared by workers without copies."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco import checks, outlines
from tldet.coco.extents import FLAT, MOVED, OUTSIDE, extents
from tldet.coco.objects import NAMED, Objects, note
from tldet.coco.partial_labels import labeled_table
from tldet.coco.reader import Coco, read_coco, require_training_fields
from tldet.errors import DataError
from tldet.structures import rle
from tldet.system.cache import cache_root, discard_cached, read_entry, write_entry
from tldet.system.inputs import real_path, require_file
from tldet.text import counted

log = logging.getLogger(__name__)
_CACHE_VERSION = 6
UNREADABLE = (DataError, OSError, ValueError, KeyError, TypeError, EOFError)  # raised for a missing or damaged cache
WORDS_FILE = "words.json"
_WORDS = ("class_names", "category_ids", "file_names", "notes")
ARRAYS = ("image_ids", "sizes", "offsets", "boxes", "labels", "crowd", "annotation_ids", "areas", "spans", "raw")


@dataclass(frozen=True)
class AnnotationIndex:
    """The annotations of one dataset; images in the order of the JSON, the objects of an image in consecutive rows.

    Attributes:
        path: the JSON.
        class_names: names of labels 0..K-1, in ascending order of category id.
        category_ids: category id of each label.
        file_names: file name of every image in the JSON.
        image_ids: (I,) int64.
        sizes: (I, 2) int32, (height, width).
        offsets: (I + 1,) int64; the objects of image i are rows ``offsets[i]:offsets[i + 1]``.
        boxes: (A, 4) float32 xyxy pixels, clipped to the image.
        labels: (A,) int64 in 0..K-1.
        crowd: (A,) bool.
        annotation_ids: (A,) int64.
        areas: (A,) float64, ``area`` in the JSON, or the area of the box.
        spans: (A + 1,) int64 into ``raw``.
        raw: (bytes,) uint8, JSON text of the segmentations, parsed when a mask is needed.
        labeled: (I, K) bool, True for classes annotated on an image (see
            :func:`~tldet.coco.partial_labels.labeled_table`); None if all are annotated on all images.
        notes: messages that count what was left out or changed, with the first ids.
        unused: name and id of the dropped supercategory entry, a class without objects.
    """

    path: Path
    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]
    file_names: Sequence[str]
    image_ids: NDArray[np.int64]
    sizes: NDArray[np.int32]
    offsets: NDArray[np.int64]
    boxes: NDArray[np.float32]
    labels: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    annotation_ids: NDArray[np.int64]
    areas: NDArray[np.float64]
    spans: NDArray[np.int64]
    raw: NDArray[np.uint8]
    labeled: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    unused: tuple[tuple[str, int], ...] = ()
    _asked: tuple[Sequence[str] | None, bool] | None = field(default=None, compare=False)

    def __len__(self) -> int:
        return len(self.image_ids)

    def __reduce__(self) -> Any:
        """Workers reopen the memory-mapped cache instead of receiving copies of the arrays."""
        if self._asked is not None and self._asked[1]:
            return AnnotationIndex.load, (self.path, self._asked[0])
        return super().__reduce__()

    def rows(self, position: int) -> slice:
        """The rows of the objects of the image at ``position``."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def has_segmentation(self) -> NDArray[np.bool_]:
        """(A,) whether an object has polygons or an RLE; ``null`` and ``[]`` are none."""
        lengths = np.diff(self.spans)
        return np.asarray(lengths > len("null"), np.bool_)

    def outlines(self) -> dict[int, Any]:
        """Return, by row, segmentations whose polygons of fewer than 3 points were dropped; None if nothing is left.

        Raises:
            DataError: a segmentation is neither polygons nor an RLE; the message names its annotation.
        """
        images = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        found: dict[int, Any] = {}
        for row in outlines.odd_rows(self.raw, self.spans):
            text = bytes(self.raw[self.spans[row] : self.spans[row + 1]])
            height, width = self.sizes[images[row]].tolist()
            if outlines.is_rle_of(text, (height, width)):
                continue
            kept, dropped = outlines.drop_degenerate(outlines.parse_outline(text))
            if kept is not None and (problem := rle.segmentation_problem(kept, (height, width))):
                raise DataError(f"{self.path}: annotation id {self.annotation_ids[row]} {problem}")
            if dropped:
                found[row] = kept
        return found

    def segmentation(self, row: int) -> Any:
        """The polygons or RLE of an object as the JSON has them, or None."""
        return outlines.parse_outline(bytes(self.raw[self.spans[row] : self.spans[row + 1]]))

    @classmethod
    def load(
        cls, path: str | Path, classes: Sequence[str] | None = None, *, cache: bool = True, quiet: bool = True
    ) -> AnnotationIndex:
        """Read a COCO JSON, from the cache where it has not changed.

        Args:
            path: the JSON.
            classes: names of a model's classes; labels then follow these, other classes' objects are left out.
            cache: keep the arrays in ``$TLDET_CACHE`` or ``~/.cache/tldet`` and map them from there.
            quiet: do not log what was left out.

        Raises:
            DataError: what is wrong, with the file and the annotation's or image's id.
        """
        path = Path(path)
        index = (_cached if cache else _parsed)(path)
        if classes is not None:
            index = index.for_classes(classes)
        if not quiet:
            for line in index.notes:
                log.warning("%s: %s", path, line)
        return replace(index, _asked=(classes, cache))

    def for_classes(self, classes: Sequence[str]) -> AnnotationIndex:
        """The same images, labeled by the given class names; objects of other classes are left out and counted.

        A class that the JSON does not have was not labeled on any of its images.
        """
        if any(name in classes and name not in self.class_names for name, _ in self.unused):
            return self._with_unused().for_classes(classes)
        common = [name for name in classes if name in self.class_names]
        if not common:
            ours, theirs = ", ".join(self.class_names[:8]), ", ".join(list(classes)[:8])
            raise DataError(
                f"{self.path}: has no class in common with the model: it has {ours}; the model has {theirs}"
            )
        if tuple(classes) == self.class_names:
            return self
        table = np.array([classes.index(n) if n in classes else -1 for n in self.class_names], np.int64)
        ids = tuple(self.category_ids[self.class_names.index(n)] if n in self.class_names else -1 for n in classes)
        labels = table[self.labels]
        known = replace(self, labels=labels, labeled=self._labeled_for(classes))
        kept = replace(known, class_names=tuple(classes), category_ids=ids)
        kept = kept if (labels >= 0).all() else kept._keep(labels >= 0)
        left = sorted(set(self.class_names) - set(classes))
        count, named = counted(int((labels < 0).sum()), "object"), ", ".join(left[:NAMED])
        line = f"{count} left out: the model does not have their classes ({named})"
        return replace(kept, notes=(*self.notes, line)) if left else kept

    def _with_unused(self) -> AnnotationIndex:
        """Add the dropped supercategory entry as a class without objects, for a model that has this class."""
        names, ids = zip(*self.unused, strict=True)
        column = np.ones((len(self), len(names)), np.bool_)
        labeled = None if self.labeled is None else np.concatenate([self.labeled, column], 1)
        return replace(
            self,
            class_names=(*self.class_names, *names),
            category_ids=(*self.category_ids, *ids),
            labeled=labeled,
            unused=(),
        )

    def _labeled_for(self, classes: Sequence[str]) -> NDArray[np.bool_] | None:
        there = np.array([name in self.class_names for name in classes])
        if self.labeled is None:
            return None if there.all() else np.broadcast_to(there, (len(self), len(there)))
        columns = [self.class_names.index(name) if name in self.class_names else 0 for name in classes]
        return np.asarray(self.labeled[:, columns] & there)

    def _keep(self, rows: NDArray[np.bool_]) -> AnnotationIndex:
        counts = np.concatenate([[0], np.cumsum(rows)])
        texts = [self.raw[a:b] for a, b in zip(self.spans[:-1][rows], self.spans[1:][rows], strict=True)]
        lengths = (self.spans[1:] - self.spans[:-1])[rows]
        return replace(
            self,
            offsets=counts[self.offsets],
            boxes=self.boxes[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            annotation_ids=self.annotation_ids[rows],
            areas=self.areas[rows],
            spans=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
            raw=np.concatenate(texts) if texts else np.zeros(0, np.uint8),
        )


def _parsed(path: Path) -> AnnotationIndex:
    coco = read_coco(path, outlines=True)
    require_training_fields(coco, str(path))
    categories = sorted(coco.categories, key=lambda c: c.id)
    found = coco.objects
    order = np.argsort(found.places, kind="stable")
    xywh, ids = found.boxes[order], found.ids[order]
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32)
    checks.require(
        np.asarray(np.isfinite(boxes).all(1)),
        lambda row: f"{path}: annotation id {ids[row]}",
        lambda row: f"has bbox {xywh[row].tolist()}: its corners must be finite in single precision",
    )
    sizes = np.array([(i.height, i.width) for i in coco.images], np.int32).reshape(-1, 2)
    areas = found.areas[order]
    index = AnnotationIndex(
        path=path,
        class_names=tuple(str(c.name) for c in categories),
        category_ids=tuple(c.id for c in categories),
        file_names=[str(i.file_name) for i in coco.images],
        image_ids=np.array([i.id for i in coco.images], np.int64),
        sizes=sizes,
        offsets=np.searchsorted(found.places[order], np.arange(len(sizes) + 1)),
        boxes=boxes,
        labels=np.searchsorted([c.id for c in categories], found.category_ids[order]),
        crowd=found.crowd[order],
        annotation_ids=ids,
        areas=np.where(np.isnan(areas), xywh[:, 2] * xywh[:, 3], areas),
        spans=np.concatenate([[0], np.cumsum(found.lengths[order])]).astype(np.int64),
        raw=_in_order(found, order),
        labeled=_labeled(path, coco),
        notes=coco.notes,
        unused=((str(coco.unused.name), coco.unused.id),) if coco.unused else (),
    )
    return _cut_to_images(index, xywh)


def _in_order(found: Objects, order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """The segmentations' texts, one behind the other, with the objects in the given order."""
    text: bytes | bytearray = found.text
    if (np.diff(order) < 0).any():
        ends = np.cumsum(found.lengths)[order]
        spans = zip((ends - found.lengths[order]).tolist(), ends.tolist(), strict=True)
        view = memoryview(text)
        text = b"".join([view[start:end] for start, end in spans])
    return np.frombuffer(text, np.uint8)


def _labeled(path: Path, coco: Coco) -> NDArray[np.bool_] | None:
    label_of = {key: label for label, key in enumerate(sorted(c.id for c in coco.categories))}
    return labeled_table(
        coco.labeled(), label_of, lambda row: f"{path}: image {coco.images[row].id} ({coco.images[row].file_name})"
    )


def _cut_to_images(index: AnnotationIndex, xywh: NDArray[np.float64]) -> AnnotationIndex:
    """Clip boxes to their images; leave out those without extent; count both."""
    ids, sizes = index.annotation_ids, np.repeat(index.sizes, np.diff(index.offsets), axis=0)
    found = extents(index.boxes, xywh, sizes)
    rows = ((found.flat, FLAT), (found.outside, OUTSIDE), (found.moved, MOVED))
    notes = [note(one, ids, "box", text, "boxes") for one, text in rows]
    kept = replace(index, boxes=found.clipped)
    kept = kept if found.kept.all() else kept._keep(found.kept)
    return replace(kept, notes=(*kept.notes, *(one for one in notes if one)))


def _cached(path: Path) -> AnnotationIndex:
    status = require_file(path, DataError)
    try:
        with path.open("rb") as file:
            head = file.read(65536)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    stamp = f"{_CACHE_VERSION} {real_path(path)} {status.st_size} {status.st_mtime_ns} ".encode()
    folder = cache_root() / "index" / hashlib.sha256(stamp + head).hexdigest()[:32]
    try:
        return _open(folder, path)
    except UNREADABLE as error:
        if os.path.lexists(folder):
            log.warning("%s: the cached annotations in %s are damaged and are rebuilt (%s)", path, folder, error)
        discard_cached(folder)
        index = _parsed(path)
    try:
        _store(index, folder)
        return _open(folder, path)
    except UNREADABLE as error:
        log.warning("the annotations are not cached in %s: %s", folder, error)
        return index


def _store(index: AnnotationIndex, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        for name in ARRAYS:
            np.save(temporary / f"{name}.npy", getattr(index, name), allow_pickle=False)
        words: dict[str, Any] = {name: list(getattr(index, name)) for name in _WORDS}
        words["unused"] = [list(one) for one in index.unused]
        words["partial"] = index.labeled is not None
        if index.labeled is not None:
            np.save(temporary / "labeled.npy", index.labeled, allow_pickle=False)
        words["arrays"] = {one.name: _stamp(one) for one in sorted(temporary.glob("*.npy"))}
        write_entry(temporary / WORDS_FILE, words)
        if not folder.exists():
            temporary.rename(folder)
    finally:
        discard_cached(temporary)


def _stamp(path: Path) -> list[int]:
    """Return size and modification time of a cached array; a checksum would read all of it at every start."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _open(folder: Path, path: Path) -> AnnotationIndex:
    words = read_entry(folder / WORDS_FILE)
    for name, stamp in words["arrays"].items():
        if _stamp(folder / name) != stamp:
            raise DataError(f"{name} has changed")
    stored = (*ARRAYS, "labeled") if words["partial"] else ARRAYS
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in stored}
    names, ids, notes = tuple(words["class_names"]), tuple(words["category_ids"]), tuple(words["notes"])
    unused = tuple((name, key) for name, key in words["unused"])
    return AnnotationIndex(path, names, ids, words["file_names"], notes=notes, unused=unused, **arrays)
