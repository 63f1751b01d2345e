"""The datasets: real ones from a folder, generated ones in the output directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.quality.aerial import VEHICLES, aerial
from benchmarks.quality.cards import CARDS, cards
from benchmarks.quality.request import QualityRequest
from benchmarks.quality.scenes import write_dataset
from tldet.data import digits
from tldet.data.generated import ANNOTATIONS_NAME
from tldet.data.layouts import Split
from tldet.data.splits import split_one
from tldet.errors import DataError

FOLDER = "data"  # in the output directory
REAL = {  # folder, annotations and images below --data-root
    "bccd": ("bccd", ("coco/train.json", "coco/test.json"), "JPEGImages"),
    "voc": ("voc_formats", ("coco/instances.json",), "JPEGImages"),
}
VOC_SHARE = 1 / 3  # for evaluation
SEED = 0  # of generated images and of the VOC split, the same for every run


@dataclass(frozen=True)
class Dataset:
    """Images to train on, and images to evaluate on."""

    name: str
    train: Split
    test: Split


def check_files(request: QualityRequest) -> None:
    """Check that the real datasets exist, before anything is generated.

    Raises:
        DataError: a file is missing.
    """
    root = Path(request.data_root)
    for name in (name for name in request.datasets if name in REAL):
        folder, annotations, images = REAL[name]
        paths = [root / folder / one for one in (*annotations, images)]
        if missing := next((path for path in paths if not path.exists()), None):
            others = " ".join(one for one in request.datasets if one not in REAL) or "digits"
            raise DataError(f"dataset {name}: {missing}: no such file; give --data-root, or --datasets {others}")


def prepare(name: str, request: QualityRequest) -> Dataset:
    """Find a real dataset, or generate one."""
    out = request.folder / FOLDER / name
    if name in REAL:
        folder, annotations, images = REAL[name]
        root = Path(request.data_root) / folder
        splits = [Split(root / path, root / images) for path in annotations]
        train, test = splits if len(splits) == 2 else split_one(splits[0], out, seed=SEED, share=VOC_SHARE)
        return Dataset(name, train, test)
    if name == "digits":
        small = {"train": 8, "valid": 1, "test": 4, "size": (96, 128)} if request.quick else {}
        digits.generate(out, seed=SEED, **small)  # type: ignore[arg-type]
    elif name == "aerial":
        size = (240, 320) if request.quick else (720, 960)
        write_dataset(out, aerial, VEHICLES, counts=(4, 2) if request.quick else (80, 40), seed=SEED, size=size)
    else:
        size = (240, 320) if request.quick else (480, 640)
        write_dataset(out, cards, CARDS, counts=(4, 2) if request.quick else (60, 40), seed=SEED, size=size)
    train, test = (Split(out / split / ANNOTATIONS_NAME, out / split) for split in ("train", "test"))
    return Dataset(name, train, test)
