"""Splits of a run or an evaluation, found from user-specified paths."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from tldet.data.formats.source import FOLDER, SourceOptions, derive, is_foreign
from tldet.data.image_folders import find_images
from tldet.data.layouts import SHOWN, AnnotationFiles, Layout, Split
from tldet.data.splits import split_one
from tldet.errors import DataError
from tldet.system.inputs import exists, is_file, is_folder

log = logging.getLogger(__name__)
_AUTO = SourceOptions()
ONE_JSON = dict.fromkeys(("train", "val", "test", "unclear"), "use one of them as --data")


def resolve_layout(
    data: str | Path | None,
    train_json: str | Path | None,
    val_json: str | Path | None,
    images: str | Path | None,
    out: Path,
    seed: int,
    source: SourceOptions = _AUTO,
) -> Layout:
    """Find the training, validation and test splits.

    Args:
        data: a folder in one of the usual layouts, or an annotation file in any format; relative paths are looked for
            in the folder first.
        train_json: training annotations in any format; by default those of ``data``.
        val_json: validation annotations; by default those of ``data``. If there are none, the test split is used;
            without a test split, the training split is divided.
        images: image folder of all splits, or its path within each split (``images`` for ``train/images`` and
            ``val/images``); searched by default.
        out: output directory; a divided training split is written to its subfolder ``split``. Annotations in other
            formats are converted to COCO JSON in its subfolder ``dataset``.
        seed: random seed of the division.
        source: format and classes of the annotations.

    Raises:
        DataError: training annotations or image folders are not found.
    """
    found = find_splits(data, train_json, val_json, images, out / FOLDER, source)
    if "val" not in found and "test" in found:
        test = found.pop("test")
        log.warning("no validation annotations: the test split (%s) is used for validation", test.annotations)
        found["val"] = test
    for name, split in found.items():
        log.info("%s: %s, images in %s", name, split.annotations, split.images)
    if "val" not in found:
        found["train"], found["val"] = split_one(found["train"], out / "split", seed=seed)
    return Layout(found["train"], found["val"], found.get("test"))


def find_splits(
    data: str | Path | None,
    train_json: str | Path | None,
    val_json: str | Path | None,
    images: str | Path | None,
    out: Path | None,
    source: SourceOptions = _AUTO,
) -> dict[str, Split]:
    """Return the splits that a dataset has, by name; images of no stated split are the training split.

    Args:
        data: see :func:`resolve_layout`, as the other arguments.
        train_json: training annotations.
        val_json: validation annotations.
        images: image folder.
        out: folder for annotations in other formats than COCO JSON; None takes one in the cache.
        source: format and classes of the annotations.

    Raises:
        DataError: annotations or image folders are not found.
    """
    if train_json is None and data is None:
        raise DataError("use --data DIR, or --train JSON with --images DIR")
    root = None if data is None else Path(data)
    if root is not None and not exists(root):
        raise DataError(f"{root}: no such folder")
    train, val = (None if p is None else _inside(root, p) for p in (train_json, val_json))
    found = _foreign_splits(root, train, val, images, out, source)
    if found is not None:
        return found
    log.info("format COCO JSON")
    if root is not None and is_file(root):
        train, root = train or root, None
    paths = dict(zip(("train", "val", "test"), _annotations(root, train, val), strict=True))
    find = partial(_split, root=root, images=images)
    return {name: find(path) for name, path in paths.items() if path is not None}


def _foreign_splits(
    root: Path | None,
    train: Path | None,
    val: Path | None,
    images: str | Path | None,
    out: Path | None,
    source: SourceOptions,
) -> dict[str, Split] | None:
    """Return the splits of annotations in other formats than COCO JSON; None if all are COCO JSON."""
    given = {"train": train, "val": val} if train is not None or val is not None else {None: root}
    sources = {split: path for split, path in given.items() if path is not None}
    if not any(is_foreign(path, source) for path in sources.values()):
        return None
    if "val" in sources and "train" not in sources:
        raise DataError(f"--val {val}: use --train for the training annotations")
    return _named(derive(sources, source, out, _image_source(root, images)), root)


def _image_source(root: Path | None, images: str | Path | None) -> Path | None:
    """Return the folder to look for images in, or the video that holds them."""
    if images is None:
        return None
    path = _inside(root, images)
    if not exists(path):
        raise DataError(f"--images {images}: no such folder")
    return path


def _named(splits: Mapping[str | None, Split], root: Path | None) -> dict[str, Split]:
    """Return the splits; images without a stated split form the training split.

    Raises:
        DataError: there are images without a stated split in addition to a training split, or no training images.
    """
    found = {split: one for split, one in splits.items() if split is not None}
    if None in splits and "train" in found:
        raise DataError(
            f"{root}: {splits[None].images} contains images outside of the splits; assign each image to a split"
        )
    if None in splits:
        found["train"] = splits[None]
    if "train" not in found:
        raise DataError(f"{root}: contains no training images, only those of {' and '.join(found)}; use --train")
    return found


def _split(annotations: Path, root: Path | None, images: str | Path | None) -> Split:
    """Return the split of a JSON, with its images below ``root`` or around the JSON."""
    folder = None if images is None else _inside(root, images)
    if folder is not None and is_folder(folder):
        return Split(annotations, folder)
    if images is not None and root is None:
        raise DataError(f"--images {images}: no such folder")
    ending = None if images is None else Path(images)
    return Split(annotations, find_images(annotations, root or annotations.parent, ending=ending))


def _inside(root: Path | None, name: str | Path) -> Path:
    """Return a path inside the data folder if it exists there, else the path itself."""
    inside = Path(name) if root is None or is_file(root) else root / name
    return inside if exists(inside) else Path(name)


def _annotations(root: Path | None, train: Path | None, val: Path | None) -> tuple[Path, Path | None, Path | None]:
    """Return the annotations of the three splits; those not given are searched in the data folder."""
    if root is None:
        assert train is not None
        return train, val, None
    files = AnnotationFiles.find(root, chosen=[path for path in (train, val) if path is not None])
    if train is None:
        train = files.train()
        return train, val or files.val(train), files.test()
    return train, val or files.val(), files.test()


def evaluation_split(data: Path, images: str | Path | None, source: SourceOptions = _AUTO) -> Split:
    """Find the split to evaluate on.

    Args:
        data: an annotation file, or a folder in one of the usual layouts: its test split, else its validation split,
            else its only split unless that is named after the training split.
        images: image folder, for a data folder also its path within the split; searched by default.
        source: format of the annotations.

    Raises:
        DataError: there is no such split, or its images are not found.
    """
    if is_foreign(data, source):
        found = _foreign_evaluation(data, images, source)
    elif is_folder(data):
        found = _split(_to_evaluate(AnnotationFiles.find(data, options=ONE_JSON)), data, images)
    else:
        found = Split(data, find_images(data, data.parent) if images is None else Path(images))
    log.info("evaluating on %s, images in %s", found.annotations, found.images)
    return found


def _foreign_evaluation(data: Path, images: str | Path | None, source: SourceOptions) -> Split:
    splits = derive({None: data}, source, None, _image_source(data, images))
    if is_file(data) and len(splits) == 1:  # the user chose this file, whatever its name
        return next(iter(splits.values()))
    found = splits.get("test") or splits.get("val") or splits.get(None)
    if found is None:
        raise DataError(f"{data}: contains no test or validation images; use the annotations to evaluate on as --data")
    return found


def annotation_split(path: Path, images: Path | None, source: SourceOptions = _AUTO) -> Split:
    """Return all images of one annotation file, or of a folder in another format than COCO JSON, as one split.

    Raises:
        DataError: the annotations are wrong, or the images are not found.
    """
    if is_foreign(path, source):
        return derive({"all": path}, source, None, images)["all"]
    return Split(path, images or find_images(path, path.parent))


def _to_evaluate(files: AnnotationFiles) -> Path:
    if path := files.test() or files.val():
        return path
    unnamed = [one for one in files.candidates if one.split is None]
    if damaged := next((one for one in unnamed if one.content.damaged), None):
        raise DataError(f"{damaged.path}: {damaged.content.problem}; repair or remove it")
    usable = [one.path for one in unnamed if one.usable]
    if len(usable) == 1:
        return usable[0]
    names = ", ".join(str(path.relative_to(files.folder)) for path in usable[:SHOWN])
    what = f"several JSON files of unknown splits ({names})" if usable else "no test or validation annotations"
    raise DataError(f"{files.folder}: contains {what}; use the JSON to evaluate on as --data")
