"""Where the annotations and pictures of a COCO-format folder are."""

from __future__ import annotations

import codecs
import json
import logging
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tldet.data.index import AnnotationIndex
from tldet.errors import DataError
from tldet.output import write_json

log = logging.getLogger(__name__)
KINDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test", "testing")}


@dataclass(frozen=True)
class Split:
    """One part of a data set: its JSON and the folder its file names are relative to."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class Layout:
    """The parts of a data set; what is not there is None."""

    train: Split
    val: Split | None = None
    test: Split | None = None


def find_layout(folder: Path, images: Path | None = None) -> Layout:
    """Recognise the usual layouts of COCO-format folders.

    ``train``, ``valid`` and ``test`` folders with a JSON in each (Roboflow); JSON files named by split in the folder,
    in ``annotations/`` or any other one below it (COCO); or a single JSON.

    Args:
        folder: what is looked through.
        images: where the pictures of every part are; they are looked for when None.

    Raises:
        DataError: nothing fits; the message says what was looked for.
    """
    _require_folder(folder)
    found = [p for depth in ("*.json", "*/*.json") for p in sorted(folder.glob(depth)) if not p.is_dir()]
    files = [p for p in found if is_coco(p)]
    if not files:
        seen = ", ".join(f"{p.relative_to(folder)}{'' if p.stat().st_size else ' (empty)'}" for p in found[:3])
        instead = f"; it holds {seen}{', ...' if len(found) > 3 else ''}, which is none" if found else ""
        raise DataError(
            f"{folder}: holds no COCO JSON{instead} (looked for annotations/*.json, "
            "{train,valid,test}/_annotations.coco.json and one *.json; a COCO JSON has images, annotations and "
            "categories)"
        )
    named: dict[str, Path] = {}
    for path in files:
        kind = split_of(path)
        if kind and not (kind in named and "instances" not in path.name):
            named[kind] = path
    if "train" not in named:
        if len(files) > 1:
            names = ", ".join(str(p.relative_to(folder)) for p in files[:5])
            raise DataError(f"{folder}: cannot tell which JSON to train on ({names}); give --train and --val")
        named["train"] = files[0]
    parts = {kind: Split(path, images or find_images(path, folder)) for kind, path in named.items()}
    return Layout(parts["train"], parts.get("val"), parts.get("test"))


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")


def is_coco(path: Path) -> bool:
    """Whether a JSON may be COCO annotations, judged without reading all of it; results and captions are not.

    Raises:
        DataError: it cannot be read: a link to nothing may be meant for the training annotations.
    """
    if re.search(r"captions|keypoints|panoptic|image_info|stuff", path.name):
        return False
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            head = file.read(1 << 16)
            file.seek(max(0, size - (1 << 16)))
            ends = head + file.read()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    text = head.removeprefix(codecs.BOM_UTF8).lstrip()
    return text[:1] == b"{" and any(b'"%s"' % key in ends for key in (b"images", b"annotations"))


def split_of(path: Path) -> str | None:
    """Which part a JSON is by its name, or else by its folder's."""
    for text in (path.stem.lower(), path.parent.name.lower()):
        words = re.split(r"[^a-z]+", text)
        for kind, names in KINDS.items():
            if any(name in words for name in names):
                return kind
    return None


def find_images(annotations: Path, root: Path) -> Path:
    """The folder in which the first pictures of a JSON are.

    Raises:
        DataError: they are in none of the places looked at, or ``root`` is no folder.
    """
    names = AnnotationIndex.load(annotations).file_names[:3]
    _require_folder(root)
    looked = list(dict.fromkeys(_image_folders(annotations, root)))
    for folder in looked:
        if all((folder / name).is_file() for name in names):
            return folder
    for folder in looked:
        if any((folder / name).is_file() for name in names):
            return folder
    shown = ", ".join(str(p) for p in looked[:6])
    raise DataError(f"{annotations}: its pictures ({names[0]}, ...) are in none of {shown}; give --images")


def _image_folders(annotations: Path, root: Path) -> Iterator[Path]:
    beside = annotations.parent
    kind = split_of(annotations)
    words = [annotations.stem.replace("instances_", ""), *KINDS.get(kind or "", ())]
    for base in (beside, beside.parent, root):
        yield base
        for word in words:
            yield from (base / word, base / "images" / word, base / word / "images")
        yield base / "images"
    yield from (p for p in sorted(root.iterdir()) if p.is_dir())


def split_one(split: Split, out: Path, *, seed: int, share: float = 0.2) -> tuple[Split, Split]:
    """Split one JSON by pictures into one to train on and one to measure on, the same for the same seed.

    Pictures are dealt out within groups of the same rarest class, so that rare classes come into both parts.

    Args:
        split: what is split.
        out: where the two JSON files go.
        seed: what the draw is made from.
        share: of the pictures that are measured on.

    Raises:
        DataError: there are fewer than two pictures, or ``out`` cannot be written.
    """
    index = AnnotationIndex.load(split.annotations)
    if len(index) < 2:
        raise DataError(f"{split.annotations}: has {len(index)} picture; at least 2 are needed to train and to measure")
    rarest = rarest_classes(index)
    random = np.random.default_rng([seed, 7])
    order = random.permutation(len(index))
    order = order[np.argsort(rarest[order], kind="stable")]
    count = min(max(1, round(share * len(index))), len(index) - 1)
    held = set(order[np.linspace(0, len(order) - 1, count).round().astype(int)].tolist())
    parts = {"train": set(range(len(index))) - held, "val": held}
    written = [
        write_part(split, {int(index.image_ids[i]) for i in chosen}, out / f"{name}.json")
        for name, chosen in parts.items()
    ]
    log.info("%s: split into %d pictures to train on, %d to measure on", split.annotations, len(index) - count, count)
    return written[0], written[1]


def rarest_classes(index: AnnotationIndex) -> NDArray[np.int64]:
    """(I,) of every picture the label of its rarest class; -1 where it shows nothing."""
    frequency = np.bincount(index.labels, minlength=len(index.class_names))
    labels = [index.labels[index.rows(i)] for i in range(len(index))]
    return np.array([found[frequency[found].argmin()] if len(found) else -1 for found in labels], np.int64)


def write_part(split: Split, image_ids: Collection[int], path: Path) -> Split:
    """Write some pictures of a JSON, with their annotations as they are, as a JSON of their own.

    Raises:
        DataError: it cannot be written.
    """
    whole = json.loads(split.annotations.read_bytes())
    part = {
        **whole,
        "images": [image for image in whole["images"] if image["id"] in image_ids],
        "annotations": [a for a in whole.get("annotations", []) if a["image_id"] in image_ids],
    }
    write_json(path, part, whole=True)
    return Split(path, split.images)
