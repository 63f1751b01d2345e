"""Few-shot data: sets of K objects a class, and what is left of a data set without its novel classes.

The protocol is that of Kang et al. 2019 and Wang et al. 2020 (TFA): a detector learns the base classes from all their
objects, then base and novel classes together from K objects each, drawn by a fixed seed.

Whatever is not drawn is still to be seen on the images. In the papers it counts as background; here each image
says, under ``labeled_category_ids``, of which classes all its objects are kept, and the absence of others teaches
nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tldet.coco.partial_labels import LABELED
from tldet.coco.raw import read_repaired
from tldet.data.index import AnnotationIndex
from tldet.errors import DataError
from tldet.system.inputs import read_file
from tldet.system.output import write_json
from tldet.text import counted

_Record = dict[str, Any]

TOLD = "few_shot"  # of a JSON of K shots: how it came about


@dataclass(frozen=True)
class Subset:
    """A JSON that was cut from another.

    Attributes:
        path: the file.
        images: how many it has.
        objects: how many annotations.
        dropped_images: how many of the source's it lacks.
        dropped_objects: annotations of its own images that it lacks.
    """

    path: Path
    images: int
    objects: int
    dropped_images: int
    dropped_objects: int


def check_novel(index: AnnotationIndex, novel: Sequence[str]) -> None:
    """Whether ``novel`` names some of a data set's classes, but not all.

    Raises:
        DataError: a name is none of the data set's, or no class would be left; the message lists what there is.
    """
    known = ", ".join(index.class_names)
    if strange := [name for name in novel if name not in index.class_names]:
        raise DataError(f"{index.path}: has no class {strange[0]!r}; it has {known}")
    if not novel or set(novel) == set(index.class_names):
        raise DataError(f"{index.path}: novel classes must be some of {known}, and not all of them")


def write_base(source: Path, novel: Sequence[str], out: Path, *, keep_images: bool = False) -> Subset:
    """Write a COCO JSON without its novel classes.

    Images whose every object is of a novel class are left out, as TFA's reader does; those without any object stay.
    Novel objects on the images that stay are background, in TFA as here: base training knows nothing of them.

    Args:
        source: a COCO JSON.
        novel: names of the classes that are taken out.
        out: the JSON that is written.
        keep_images: leave all images in, for measuring.

    Raises:
        DataError: ``source`` cannot be used, ``novel`` is wrong, or ``out`` cannot be written.
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
    """Write a COCO JSON with exactly ``shots`` objects of every class, and the images that carry them.

    Each class's objects, in order of their ids, are shuffled by (seed, category id) and the first ones taken: a pure
    function of the seed, and the set of a smaller number lies within that of a larger one. Crowd regions are not drawn.

    Args:
        source: a COCO JSON.
        shots: K, objects a class.
        seed: what is drawn from.
        out: the JSON that is written; under ``few_shot`` it says how it came about.
        as_background: have what is not drawn count as background, as in the papers.

    Raises:
        DataError: ``source`` cannot be used, a class has fewer objects (named, with both numbers), or ``out`` cannot
            be written.
    """
    digest = sha256(read_file(source, DataError)).hexdigest()
    asked: _Record = {"source": str(source), "sha256": digest, "shots": shots, "seed": seed}
    asked["as_background"] = as_background
    if (before := _earlier(out, asked)) is not None:
        return before
    drawn = draw_shots(AnnotationIndex.load(source), shots, seed)
    whole = read_repaired(source)
    annotations = [a for a in whole["annotations"] if a["id"] in drawn]
    carrying = {a["image_id"] for a in annotations}
    images = [image for image in whole["images"] if image["id"] in carrying]
    if not as_background:
        complete = _complete(whole, drawn)
        images = [{**image, LABELED: complete[image["id"]]} for image in images]
    return _write(whole, {"images": images, "annotations": annotations, TOLD: asked}, out)


def _earlier(out: Path, asked: _Record) -> Subset | None:
    """The set in ``out`` if it was drawn before by the same numbers from the same bytes: parsing those takes long."""
    try:
        told = json.loads(read_file(out, DataError))[TOLD]
        counts = told.pop("counts")
        return Subset(out, **counts) if told == asked else None
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
    """The annotation ids of ``shots`` objects of each class; see :func:`write_shots`.

    Raises:
        DataError: a class has fewer objects.
    """
    pools = [_pool(index, label) for label in range(len(index.class_names))]
    for name, pool in zip(index.class_names, pools, strict=True):
        if len(pool) < shots:
            few = f"only {counted(len(pool), 'object')}" if len(pool) else "no object"
            raise DataError(f"{index.path}: {shots} shots of class {name!r} asked for, but it has {few}")
    return {int(one) for label, pool in enumerate(pools) for one in _shuffled(pool, seed, index, label)[:shots]}


def _pool(index: AnnotationIndex, label: int) -> NDArray[np.int64]:
    return np.sort(index.annotation_ids[(index.labels == label) & ~index.crowd])


def _shuffled(pool: NDArray[np.int64], seed: int, index: AnnotationIndex, label: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, index.category_ids[label] % 2**64]).permutation(pool)


def _complete(whole: _Record, kept: Collection[int]) -> dict[int, list[int]]:
    """The classes of each image, by its id, none of whose annotations there is left out; classes without one too."""
    lost = Counter((a["image_id"], a["category_id"]) for a in whole["annotations"] if a["id"] not in kept)
    categories = [c["id"] for c in whole["categories"]]
    said = {i["id"]: set(categories if i.get(LABELED) is None else i[LABELED]) for i in whole["images"]}
    return {image: [c for c in categories if c in ids and not lost[image, c]] for image, ids in said.items()}


def _without(image: _Record, gone: Collection[int]) -> _Record:
    """An image's record that does not name the categories ``gone``."""
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
    told = {TOLD: {**parts[TOLD], "counts": counts}} if TOLD in parts else {}
    write_json(out, {**whole, **parts, **told})
    return Subset(out, **counts)
