"""``AnnotationIndex``: a COCO JSON parsed once into flat arrays, cached on disk, shared by workers without copies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from tldet.coco import checks
from tldet.coco.checks import FLAT, MOVED, OUTSIDE, clip_to_images, note
from tldet.coco.partial_labels import labeled_in
from tldet.coco.reader import Write, read_coco
from tldet.coco.segmentations import parse_segmentation
from tldet.data.index_cache import cached_fields
from tldet.data.index_classes import index_for_classes
from tldet.text import counted

_CHUNK = 4096  # strings decoded at a time in iteration


class TextTable(Sequence[str]):
    """Sequence of strings that are decoded on access.

    Args:
        text: (B,) uint8, the UTF-8 bytes of all strings, concatenated.
        spans: (N + 1,) int64, offset of each string in ``text``, and B.
    """

    def __init__(self, text: NDArray[np.uint8], spans: NDArray[np.int64]) -> None:
        self.text, self.spans = np.asarray(text), np.asarray(spans)

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextTable:
        """Make a table of ``texts``."""
        encoded = [text.encode("utf-8", "surrogatepass") for text in texts]
        spans = np.concatenate([[0], np.cumsum([len(one) for one in encoded], dtype=np.int64)]).astype(np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), spans)

    def __len__(self) -> int:
        return len(self.spans) - 1

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> list[str]: ...
    def __getitem__(self, key: int | slice) -> str | list[str]:
        if isinstance(key, slice):
            return [self._text(position) for position in range(*key.indices(len(self)))]
        position = int(key) + len(self) if key < 0 else int(key)
        if not 0 <= position < len(self):
            raise IndexError(f"index {key} is out of range for {counted(len(self), 'text')}")
        return self._text(position)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            spans = self.spans[start : start + _CHUNK + 1].tolist()
            text = self.text[spans[0] : spans[-1]].tobytes()
            yield from (_decoded(text[a - spans[0] : b - spans[0]]) for a, b in pairwise(spans))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and len(self) == len(other) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TextTable of {counted(len(self), 'text')}"

    def _text(self, position: int) -> str:
        return _decoded(self.text[self.spans[position] : self.spans[position + 1]].tobytes())


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


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
        file_rows: (A,) int64, position of each object in the annotations of the JSON.
        spans: (F + 1,) int64 into ``raw``, start of the segmentation of each annotation of the JSON, and the end.
        raw: (bytes,) uint8, JSON text of the segmentations in file order, parsed when a mask is needed.
        labeled: (I, K) bool, True for classes annotated on an image (see
            :func:`~tldet.coco.partial_labels.labeled_table`); None if all are annotated on all images.
        notes: messages that count left out or changed objects, with the first ids.
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
    file_rows: NDArray[np.int64]
    spans: NDArray[np.int64]
    raw: NDArray[np.uint8]
    labeled: NDArray[np.bool_] | None = None
    notes: tuple[str, ...] = ()
    unused: tuple[tuple[str, int], ...] = ()
    _loaded_as: tuple[Sequence[str] | None, bool] | None = field(default=None, compare=False)  # classes, cache

    def __len__(self) -> int:
        return len(self.image_ids)

    def __reduce__(self) -> Any:
        """Pickle a cached index as its path: worker processes map the cache instead of receiving copies."""
        if self._loaded_as is not None and self._loaded_as[1]:
            return AnnotationIndex.load, (self.path, self._loaded_as[0])
        return super().__reduce__()

    def rows(self, position: int) -> slice:
        """Return the rows of the objects on the image at ``position``."""
        return slice(int(self.offsets[position]), int(self.offsets[position + 1]))

    def has_segmentation(self) -> NDArray[np.bool_]:
        """Return (A,) bool: True for objects with polygons or an RLE, that is, neither ``null`` nor ``[]``."""
        return np.asarray((np.diff(self.spans) > len("null"))[self.file_rows], np.bool_)

    def segmentation(self, row: int) -> Any:
        """Return the polygons or RLE of an object as they are in the JSON, or None."""
        return parse_segmentation(self.segmentation_text(row))

    def segmentation_text(self, row: int) -> bytes:
        """Return the JSON text of the segmentation of an object."""
        position = self.file_rows[row]
        return bytes(self.raw[self.spans[position] : self.spans[position + 1]])

    @classmethod
    def load(cls, path: str | Path, classes: Sequence[str] | None = None, *, cache: bool = True) -> AnnotationIndex:
        """Read a COCO JSON, or its cached arrays if it has not changed.

        Args:
            path: the JSON.
            classes: class names of a model, which the labels then follow; objects of other classes are left out.
            cache: keep the arrays in ``$TLDET_CACHE`` or ``~/.cache/tldet``, and map them into memory.

        Raises:
            DataError: the file is invalid; the message names the file and the id of the annotation, image or category.
        """
        path = Path(path)
        parse = partial(_parse, path)
        index = _from_fields(path, cached_fields(path, parse) if cache else parse(None))
        if classes is not None:
            index = index.for_classes(classes)
        return replace(index, _loaded_as=(classes, cache))

    def for_classes(self, classes: Sequence[str]) -> AnnotationIndex:
        """Return the index with other class names; see :func:`~tldet.data.index_classes.index_for_classes`."""
        return index_for_classes(self, classes)

    def keep(self, rows: NDArray[np.bool_]) -> AnnotationIndex:
        """Return the index with the objects of some rows (A,) only."""
        counts = np.concatenate([[0], np.cumsum(rows)])
        columns = ("boxes", "labels", "crowd", "annotation_ids", "areas", "file_rows")
        return replace(self, offsets=counts[self.offsets], **{name: getattr(self, name)[rows] for name in columns})


def _from_fields(path: Path, fields: Mapping[str, Any]) -> AnnotationIndex:
    names, ids, notes = (tuple(fields[name]) for name in ("class_names", "category_ids", "notes"))
    unused = tuple((name, key) for name, key in fields["unused"])
    others = {"class_names": names, "category_ids": ids, "notes": notes, "unused": unused}
    arrays = {name: value for name, value in fields.items() if name not in ("names", "name_spans")}
    file_names = TextTable(fields["names"], fields["name_spans"])
    return AnnotationIndex(**{**arrays, "path": path, "file_names": file_names, **others})


def _parse(path: Path, write: Write | None) -> dict[str, Any]:
    """Read and check a COCO JSON; return the fields of its index, without ``raw`` if ``write`` takes this text."""
    coco = read_coco(path, segmentations=True, write=write)
    checks.training_fields(str(path), coco.images, coco.categories)
    categories = sorted(coco.categories, key=lambda category: category.id)
    objects = coco.objects.take(np.argsort(coco.objects.positions, kind="stable"))
    xywh = objects.boxes
    index = AnnotationIndex(
        path=path,
        class_names=tuple(str(category.name) for category in categories),
        category_ids=tuple(category.id for category in categories),
        file_names=TextTable.of(str(image.file_name) for image in coco.images),
        image_ids=np.array([image.id for image in coco.images], np.int64),
        sizes=np.array([(image.height, image.width) for image in coco.images], np.int32).reshape(-1, 2),
        offsets=np.searchsorted(objects.positions, np.arange(len(coco.images) + 1)),
        boxes=_corners(path, xywh, objects.ids),
        labels=np.searchsorted([category.id for category in categories], objects.category_ids),
        crowd=objects.crowd,
        annotation_ids=objects.ids,
        areas=np.where(np.isnan(objects.areas), xywh[:, 2] * xywh[:, 3], objects.areas),
        file_rows=objects.rows,
        spans=objects.spans,
        raw=np.frombuffer(objects.text, np.uint8),
        labeled=None if (stated := coco.labeled()) is None else labeled_in(coco, stated, str(path)),
        notes=coco.notes,
        unused=((str(coco.unused.name), coco.unused.id),) if coco.unused else (),
    )
    fields = dict(vars(_clip_to_images(index, xywh)))
    names = fields.pop("file_names")
    fields |= {"names": names.text, "name_spans": names.spans}
    left_out = ("path", "_loaded_as", *(() if write is None else ("raw",)))
    return {name: value for name, value in fields.items() if name not in left_out}


def _corners(path: Path, xywh: NDArray[np.float64], ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """Convert xywh boxes (A, 4) to xyxy."""
    with np.errstate(over="ignore", invalid="ignore"):
        boxes = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], 1).astype(np.float32)
    checks.require(
        np.asarray(np.isfinite(boxes).all(1)),
        lambda row: f"{path}: annotation id {ids[row]}",
        lambda row: f"has bbox {xywh[row].tolist()}: its corners must be finite in single precision",
    )
    return boxes


def _clip_to_images(index: AnnotationIndex, xywh: NDArray[np.float64]) -> AnnotationIndex:
    """Clip boxes to their images and leave out those of zero extent or outside; count all three in notes."""
    found = clip_to_images(index.boxes, xywh, np.repeat(index.sizes, np.diff(index.offsets), axis=0))
    rows = ((found.flat, FLAT), (found.outside, OUTSIDE), (found.moved, MOVED))
    notes = [note(which, index.annotation_ids, "box", text, "boxes") for which, text in rows]
    kept = replace(index, boxes=found.clipped)
    kept = kept if found.kept.all() else kept.keep(found.kept)
    return replace(kept, notes=(*kept.notes, *(line for line in notes if line)))
