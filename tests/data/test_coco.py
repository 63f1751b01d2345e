"""CocoDataset: the masks it reads, and what is said of those that are none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tldet.data.coco import CocoDataset, decode_mask
from tldet.errors import DataError

SIZE = (6, 8)
SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]


def dataset(folder: Path, segmentation: Any) -> CocoDataset:
    cv2.imwrite(str(folder / "a.png"), np.zeros((*SIZE, 3), np.uint8))
    one = {"id": 5, "image_id": 9, "category_id": 1, "bbox": [1, 1, 4, 3], "segmentation": segmentation}
    images = [{"id": 9, "file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}]
    whole = {"images": images, "categories": [{"id": 1, "name": "x"}], "annotations": [one]}
    (folder / "some.json").write_text(json.dumps(whole))
    return CocoDataset(str(folder / "some.json"), str(folder), masks=True)


@pytest.mark.parametrize(
    ("segmentation", "expected"),
    [
        (SQUARE, "not a flat list of at least three points"),
        ([SQUARE, []], "not a flat list of at least three points"),
        ([[1, 1, 5, 4]], "not a flat list of at least three points"),
        ([[1, 1, 5, 1, 5, 4, 1]], "not a flat list of at least three points"),
        ([[[1, 1], [5, 1], [5, 4], [1, 4], [1, 3], [1, 2]]], "not a flat list of at least three points"),
        ([[1, 1, 5, 1, 5, 10**400]], "neither a list of polygons nor an RLE"),
        (["1, 1, 5, 4"], "neither a list of polygons nor an RLE"),
        ({"size": list(SIZE)}, "neither a list of polygons nor an RLE"),
        ({"size": [8, 6], "counts": [48]}, "has a mask of size [8, 6], its picture has [6, 8]"),
        ({"size": list(SIZE), "counts": [40]}, "counts do not fill"),
        ({"size": list(SIZE), "counts": "P"}, "neither a list of polygons nor an RLE"),
        ("mask.png", "neither a list of polygons nor an RLE"),
    ],
)
def test_what_is_no_mask_is_named(tmp_path: Path, segmentation: Any, expected: str) -> None:
    with pytest.raises(DataError) as raised:
        dataset(tmp_path, segmentation)[0]
    text = str(raised.value)
    assert text.startswith(f"{tmp_path / 'some.json'}: annotation 5 has ")
    assert expected in text
    assert "\n" not in text


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.mask.decode
@pytest.mark.parametrize(
    ("segmentation", "pixels"),
    [
        (None, 0),
        ([], 0),
        ([[]], 0),
        ([SQUARE], 12),
        ({"size": list(SIZE), "counts": [6, 5, 37]}, 5),
        ({"size": list(SIZE), "counts": "66T1"}, 6),
    ],
)
def test_masks(tmp_path: Path, segmentation: Any, pixels: int) -> None:
    found = dataset(tmp_path, segmentation)
    masks = found[0].target.masks
    assert masks is not None
    assert masks.shape == (1, *SIZE)
    assert int(masks.sum()) == pixels == int(decode_mask(segmentation, SIZE).sum())
    assert found.index.has_segmentation().tolist() == [pixels > 0]
