"""Splits of a run or an evaluation, found from user-specified paths."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from tldet.data.image_folders import find_images
from tldet.data.layouts import SHOWN, AnnotationFiles, Layout, Split
from tldet.data.splits import split_one
from tldet.errors import DataError
from tldet.system.inputs import exists, is_folder

log = logging.getLogger(__name__)
ONE_JSON = dict.fromkeys(("train", "val", "test"), "give one of them as --data")


def resolve_layout(
    data: str | Path | None,
    train_json: str | Path | None,
    val_json: str | Path | None,
    images: str | Path | None,
    out: Path,
    seed: int,
) -> Layout:
    """Find the training, validation and test splits.

    Args:
        data: a folder in one of the usual layouts; relative paths are looked for in it first.
        train_json: training annotations; by default those of ``data``.
        val_json: validation annotations; by default those of ``data``. If there are none, the test split is used;
            without a test split, the training split is divided.
        images: image folder of all splits, or its path within each split (``images`` for ``train/images`` and
            ``val/images``); searched by default.
        out: output directory; a divided training split is written to its subfolder ``split``.
        seed: random seed of the division.

    Raises:
        DataError: training annotations or image folders are not found.
    """
    if train_json is None and data is None:
        raise DataError("give --data DIR, or --train JSON with --images DIR")
    root = None if data is None else Path(data)
    if root is not None and not is_folder(root):
        raise DataError(f"{root}: no such folder")
    train, val, test = _annotations(root, *(None if p is None else _inside(root, p) for p in (train_json, val_json)))
    if val is None and test is not None:
        log.warning("no validation annotations: the test split (%s) is used for validation", test)
        val, test = test, None
    find = partial(_split, root=root, images=images)
    found = {name: find(path) for name, path in (("train", train), ("val", val), ("test", test)) if path is not None}
    for name, split in found.items():
        log.info("%s: %s, images in %s", name, split.annotations, split.images)
    if "val" not in found:
        found["train"], found["val"] = split_one(found["train"], out / "split", seed=seed)
    return Layout(found["train"], found["val"], found.get("test"))


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
    inside = Path(name) if root is None else root / name
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


def evaluation_split(data: Path, images: str | Path | None) -> Split:
    """Find the split to evaluate on.

    Args:
        data: a COCO JSON, or a folder in one of the usual layouts: its test split, else its validation split, else its
            only JSON unless that is named after the training split.
        images: image folder, for a data folder also its path within the split; searched by default.

    Raises:
        DataError: there is no such split, or its images are not found.
    """
    if is_folder(data):
        found = _split(_to_evaluate(AnnotationFiles.find(data, options=ONE_JSON)), data, images)
    else:
        found = Split(data, find_images(data, data.parent) if images is None else Path(images))
    log.info("evaluating on %s, images in %s", found.annotations, found.images)
    return found


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
    raise DataError(f"{files.folder}: holds {what}; give the JSON to evaluate on as --data")
