"""Few-shot datasets: K objects per class, and datasets without their novel classes.

The protocol is that of Kang et al. 2019 and Wang et al. 2020 (TFA). A detector is trained on all objects of the base
classes, then on K objects of each base and novel class, drawn with a fixed seed.

Objects that are not drawn are still visible on the images. In the papers they count as background. Here each image
lists in ``labeled_category_ids`` the classes of which all its objects are kept; other classes are ignored on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.partial_labels import LABELED
from tldet.coco.raw import read_field, read_repaired
from tldet.data.index import AnnotationIndex
from tldet.errors import DataError
from tldet.system.inputs import read_file
from tldet.system.output import write_json
from tldet.text import counted

_Record = dict[str, Any]

ORIGIN = "few_shot"  # key of a JSON of K shots: its source and settings


@dataclass(frozen=True)
class Subset:
    """A JSON with a part of the images and objects of another.

    Attributes:
        path: the file.
        images: number of images.
        objects: number of annotations.
        dropped_images: number of images of the source that are left out.
        dropped_objects: number of annotations that are left out of the remaining images.
    """

    path: Path
    images: int
    objects: int
    dropped_images: int
    dropped_objects: int


def check_novel(index: AnnotationIndex, novel: Sequence[str]) -> None:
    """Check that ``novel`` names some of the classes of a dataset, but not all.

    Raises:
        DataError: a name is unknown, or no class would be left; the message lists the classes.
    """
    known = ", ".join(index.class_names)
    if unknown := [name for name in novel if name not in index.class_names]:
        raise DataError(f"{index.path}: has no class {unknown[0]!r}; it has {known}")
    if not novel or set(novel) == set(index.class_names):
        raise DataError(f"{index.path}: novel classes must be some of {known}, and not all of them")


def write_base(source: Path, novel: Sequence[str], out: Path, *, keep_images: bool = False) -> Subset:
    """Write a COCO JSON without its novel classes.

    Images that show novel objects only are left out, as in TFA; images without objects are kept. As in TFA, novel
    objects on the remaining images count as background.

    Args:
        source: a COCO JSON.
        novel: names of the classes to remove.
        out: output file.
        keep_images: keep all images, for evaluation.

    Raises:
        DataError: ``source`` is invalid, ``novel`` is wrong, or ``out`` cannot be written.
    """
    index = AnnotationIndex.load(source)
    check_novel(index, novel)
    gone = {index.category_ids[index.class_names.index(name)] for name in novel}
    whole = read_repaired(source)
    annotations = [a for a in whole["annotations"] if a["category_id"] not in gone]
    lost = {a["image_id"] for a in whole["annotations"]} - {a["image_id"] for a in annotations}
    images = [_without(image, gone) for image in whole["images"] if keep_images or image["id"] not in lost]
    categories = [c for c in whole["categories"] if c["id"] not in gone]
    return _write(whole, {"images": images, "annotations": annotations, "categories": categories}, out)


def write_shots(source: Path, shots: int, seed: int, out: Path, *, as_background: bool = False) -> Subset:
    """Write a COCO JSON with exactly ``shots`` objects of every class, and the images that show them.

    The objects of a class, sorted by id, are shuffled with (seed, category id), and the first ones are taken. The
    result is a pure function of the seed, and a larger set contains the smaller ones. Crowd regions are not drawn.

    Args:
        source: a COCO JSON.
        shots: K, objects per class.
        seed: random seed.
        out: output file; its key ``few_shot`` states source and settings.
        as_background: treat objects that are not drawn as background, as in the papers.

    Raises:
        DataError: ``source`` is invalid, a class has fewer objects (the message states both numbers), or ``out`` cannot
            be written.
    """
    digest = sha256(read_file(source, DataError)).hexdigest()
    origin: _Record = {"source": str(source), "sha256": digest, "shots": shots, "seed": seed}
    origin["as_background"] = as_background
    if (before := _earlier(out, origin)) is not None:
        return before
    drawn = draw_shots(AnnotationIndex.load(source), shots, seed)
    whole = read_repaired(source)
    annotations = [a for a in whole["annotations"] if a["id"] in drawn]
    carrying = {a["image_id"] for a in annotations}
    images = [image for image in whole["images"] if image["id"] in carrying]
    if not as_background:
        complete = _complete(whole, drawn)
        images = [{**image, LABELED: complete[image["id"]]} for image in images]
    return _write(whole, {"images": images, "annotations": annotations, ORIGIN: origin}, out)


def _earlier(out: Path, origin: _Record) -> Subset | None:
    """Return the subset in ``out`` if it was drawn from the same file with the same settings; else None."""
    try:
        stated = read_field(out, ORIGIN)
        counts = stated.pop("counts")
        return Subset(out, **counts) if stated == origin else None
    except (
        DataError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ):  # missing, damaged or another file
        return None


def draw_shots(index: AnnotationIndex, shots: int, seed: int) -> set[int]:
    """Draw the annotation ids of ``shots`` objects of each class; see :func:`write_shots`.

    Raises:
        DataError: a class has fewer objects.
    """
    pools = [_pool(index, label) for label in range(len(index.class_names))]
    for name, pool in zip(index.class_names, pools, strict=True):
        if len(pool) < shots:
            few = f"only {counted(len(pool), 'object')}" if len(pool) else "no object"
            raise DataError(f"{index.path}: class {name!r} has {few}, fewer than {shots} shots")
    return {int(one) for label, pool in enumerate(pools) for one in _shuffled(pool, seed, index, label)[:shots]}


def _pool(index: AnnotationIndex, label: int) -> NDArray[np.int64]:
    return np.sort(index.annotation_ids[(index.labels == label) & ~index.crowd])


def _shuffled(pool: NDArray[np.int64], seed: int, index: AnnotationIndex, label: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, index.category_ids[label] % 2**64]).permutation(pool)


def _complete(whole: _Record, kept: Collection[int]) -> dict[int, list[int]]:
    """Return by image id the categories of which no annotation on the image is left out."""
    lost = Counter((a["image_id"], a["category_id"]) for a in whole["annotations"] if a["id"] not in kept)
    categories = [c["id"] for c in whole["categories"]]
    stated = {i["id"]: set(categories if i.get(LABELED) is None else i[LABELED]) for i in whole["images"]}
    return {image: [c for c in categories if c in ids and not lost[image, c]] for image, ids in stated.items()}


def _without(image: _Record, gone: Collection[int]) -> _Record:
    """Return the record of an image without the categories ``gone`` in its ``labeled_category_ids``."""
    if image.get(LABELED) is None:
        return image
    return {**image, LABELED: [c for c in image[LABELED] if c not in gone]}


def _write(whole: _Record, parts: _Record, out: Path) -> Subset:
    images, annotations = parts["images"], parts["annotations"]
    ids = {image["id"] for image in images}
    before = sum(a["image_id"] in ids for a in whole["annotations"])
    counts = {
        "images": len(images),
        "objects": len(annotations),
        "dropped_images": len(whole["images"]) - len(images),
        "dropped_objects": before - len(annotations),
    }
    origin = {ORIGIN: {**parts[ORIGIN], "counts": counts}} if ORIGIN in parts else {}
    write_json(out, {**whole, **parts, **origin})
    return Subset(out, **counts)
