"""JPEG files to batches on one core, compared with torchvision's transforms and with decoding and resizing alone.

Also reading of a large annotation file (:mod:`benchmarks.annotations`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torchvision
from torch import Tensor

from benchmarks.annotations import reading_rows
from benchmarks.infer import random_image
from benchmarks.report import PeakShare, Row, Suite
from benchmarks.suites import Bench
from benchmarks.timing import best_of
from tldet.data.dataset import CocoDataset
from tldet.data.digits import generate
from tldet.data.images import read_reduced
from tldet.data.layouts import find_layout
from tldet.data.loader import SampleKey, collate
from tldet.runtime.images import fitted_size, reduction, resize_to
from tldet.structures.batch import Batch

SIZE, BATCH = (480, 640), 8
STORED = (500, 667)  # size of generated images, similar to COCO
IMAGES, QUICK_IMAGES = 64, 8
PHOTO, QUICK_PHOTO, INPUT = (3024, 4032), (2016, 2688), (800, 1333)
COLOR = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.02}
JPEG = frozenset({".jpg", ".jpeg"})


def run(bench: Bench) -> Suite:
    """Run in one process with one thread."""
    size, batch = bench.size or SIZE, bench.batch or BATCH
    dataset = _dataset(bench, size)
    jpegs = [p for p in range(len(dataset)) if Path(dataset.index.file_names[dataset.positions[p]]).suffix in JPEG]
    if not jpegs:
        return Suite("data", reading_rows(bench), [f"{dataset.folder}: contains no JPEG"])
    paths = [dataset.folder / dataset.index.file_names[dataset.positions[p]] for p in jpegs]
    epochs = count()

    def ours() -> list[Batch]:
        epoch = next(epochs)
        keys = [SampleKey(epoch, p, number // batch) for number, p in enumerate(jpegs)]
        return [collate([dataset[key] for key in keys[i : i + batch]]) for i in range(0, len(keys), batch)]

    images = len(jpegs)
    with one_thread():
        decoding = best_of(lambda: [_decoded(path) for path in paths], 3)
        sides = {
            "torchvision v2 on Pillow": torchvision_side(dataset, jpegs, size, batch, pillow=True),
            "torchvision v2 on decode_jpeg": torchvision_side(dataset, jpegs, size, batch, pillow=False),
            "decoding and resizing alone": lambda: [_scaled(_decoded(path), size) for path in paths],
        }
        rows = []
        if not hasattr(torchvision.io, "decode_jpeg"):  # later versions leave decoding to torchcodec
            del sides["torchvision v2 on decode_jpeg"]
        for baseline, side in sides.items():
            compared = bench.compare(f"data, {baseline}", ours, side, 10).divided(images)
            share = PeakShare(decoding / images / compared.ours.median, "of JPEG decoding alone")
            rate = {"images/s per core": 1 / compared.ours.median}
            name = f"JPEG to batches of {batch}x{size[0]}x{size[1]}"
            rows.append(Row(name, baseline, compared, "image", peak=share, checks=rate))
        rows.append(_reduced_row(bench))
    return Suite("data", rows + reading_rows(bench))


def _reduced_row(bench: Bench) -> Row:
    """Compare reading of an image that is much larger than the input size."""
    size, (short, long) = QUICK_PHOTO if bench.quick else PHOTO, INPUT
    path = bench.folder / "large.jpg"
    cv2.imwrite(str(path), random_image(size, 0), [cv2.IMWRITE_JPEG_QUALITY, 90])
    height, width = fitted_size(size, short, long)
    compared = bench.compare(
        "large image",
        lambda: resize_to(read_reduced(path, INPUT).image, (height, width)),
        lambda: resize_to(_decoded(path), (height, width)),
        10,
    )
    name = f"JPEG of {size[0]}x{size[1]} to {height}x{width}"
    return Row(
        name, "decoding at full size", compared, "image", checks={"decoded at": f"1/{reduction(size, short, long)}"}
    )


def _dataset(bench: Bench, size: tuple[int, int]) -> CocoDataset:
    steps: list[dict[str, Any]] = [
        {"type": "Resize", "short": min(size), "long": max(size)},
        {"type": "HorizontalFlip", "p": 0.5},
        {"type": "ColorJitter", **COLOR, "p": 0.5},
    ]
    number = QUICK_IMAGES if bench.quick else IMAGES
    folder = bench.data
    if folder is None:
        bench.show(f"writing {number} images")
        folder = generate(bench.folder / "images", train=number, valid=1, test=1, size=STORED)
    split = find_layout(folder).train
    dataset = CocoDataset(str(split.annotations), str(split.images), steps)
    dataset.positions = dataset.positions[:number]
    return dataset


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread, as in a loader process."""
    threads, others = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        cv2.setNumThreads(others)


def _decoded(path: Path) -> Any:
    decoded: Any = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB, dst=decoded)


def _scaled(image: Any, size: tuple[int, int]) -> Any:
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)


def torchvision_side(
    dataset: CocoDataset, numbers: list[int], size: tuple[int, int], batch: int, *, pillow: bool
) -> Callable[[], list[Tensor]]:
    """Return the same pipeline in ``torchvision.transforms.v2``, reading with Pillow or decode_jpeg."""
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    color = v2.RandomApply([v2.ColorJitter(**COLOR)], p=0.5)
    steps = v2.Compose([v2.Resize(size), v2.RandomHorizontalFlip(0.5), color, v2.SanitizeBoundingBoxes()])
    read = _read_pillow if pillow else _read_tensor
    index = dataset.index

    def one(number: int) -> Tensor:
        position = int(dataset.positions[number])
        image = read(dataset.folder / index.file_names[position])
        rows = index.rows(position)
        canvas = (int(image.shape[-2]), int(image.shape[-1]))
        boxes = tv_tensors.BoundingBoxes(np.array(index.boxes[rows]), format="XYXY", canvas_size=canvas)
        out = steps({"image": image, "boxes": boxes, "labels": torch.from_numpy(np.array(index.labels[rows]))})
        result: Tensor = out["image"]
        return result

    def side() -> list[Tensor]:
        return [torch.stack([one(p) for p in numbers[i : i + batch]]) for i in range(0, len(numbers), batch)]

    return side


def _read_pillow(path: Path) -> Tensor:
    from PIL import Image
    from torchvision.transforms.v2.functional import pil_to_tensor

    with Image.open(path) as opened:
        read: Tensor = pil_to_tensor(opened.convert("RGB"))
    return read


def _read_tensor(path: Path) -> Tensor:
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    read: Tensor = decode_jpeg(read_file(str(path)), mode=ImageReadMode.RGB)
    return read
