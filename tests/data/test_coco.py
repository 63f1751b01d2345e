"""CocoDataset: masks, messages about invalid masks, and labeled classes of an image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tldet.data.dataset import CocoDataset
from tldet.data.loader import SampleKey
from tldet.data.masks import decode_mask
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
        ([[1, 1, 5, 1, 5, 4, 1]], "not a flat list of at least three points"),
        ([[[1, 1], [5, 1], [5, 4], [1, 4], [1, 3], [1, 2]]], "not a flat list of at least three points"),
        ([[1, 1, 5, 1, 5, 10**400]], "neither a list of polygons nor an RLE"),
        (["1, 1, 5, 4"], "neither a list of polygons nor an RLE"),
        ({"size": list(SIZE)}, "neither a list of polygons nor an RLE"),
        ({"size": [8, 6], "counts": [48]}, "has a mask of size [8, 6], but its image is [6, 8]"),
        ({"size": list(SIZE), "counts": [40]}, "counts do not fill"),
        ({"size": list(SIZE), "counts": "P"}, "neither a list of polygons nor an RLE"),
        ("mask.png", "neither a list of polygons nor an RLE"),
    ],
)
def test_invalid_masks_are_named(tmp_path: Path, segmentation: Any, expected: str) -> None:
    with pytest.raises(DataError) as raised:
        dataset(tmp_path, segmentation)[0]
    text = str(raised.value)
    assert text.startswith(f"{tmp_path / 'some.json'}: annotation id 5 has ")
    assert expected in text
    assert "\n" not in text


@pytest.mark.parametrize(
    "segmentation", [{"size": [8, 6], "counts": [48]}, {"size": list(SIZE)}, {"size": None, "counts": "P"}, {"a": 1}]
)
def test_a_mask_of_another_size_is_found_before_training(tmp_path: Path, segmentation: Any) -> None:
    with pytest.raises(DataError, match="annotation id 5 has a "):
        dataset(tmp_path, segmentation)


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


@pytest.mark.parametrize(
    ("options", "first", "message"),
    [
        ({}, [False, True], "1 of 2 images is annotated for some classes only; the other classes are ignored there"),
        ({"partial": False}, None, "treated as fully annotated (partial=False)"),
        ({"classes": ["y", "x"]}, [True, False], "1 of 2 images"),
        ({"classes": ["x", "y", "z"]}, [False, True, False], "2 of 2 images"),
    ],
)
def test_a_target_states_the_classes_annotated_on_its_image(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], first: list[bool] | None, message: str
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((*SIZE, 3), np.uint8))
    one = {"file_name": "a.png", "width": SIZE[1], "height": SIZE[0]}
    images = [{"id": 1, "labeled_category_ids": [4], **one}, {"id": 2, **one}]
    objects = [{"id": i, "image_id": 1, "category_id": 2 * i, "bbox": [1, 1, 4, 3]} for i in (1, 2)]
    whole = {"images": images, "categories": [{"id": 2, "name": "x"}, {"id": 4, "name": "y"}], "annotations": objects}
    (tmp_path / "some.json").write_text(json.dumps(whole))
    caplog.set_level("INFO")
    data = CocoDataset(str(tmp_path / "some.json"), str(tmp_path), **options)
    partly, other = data[0].target, data[1].target
    assert len(partly) == 2, "also the object of a class that was not labeled is learned"
    assert (None if partly.labeled is None else partly.labeled.tolist()) == first
    assert (other.labeled is None) == ("z" not in options.get("classes", []))
    assert message in caplog.text


def test_boxes_fit_an_image_that_was_decoded_smaller(tmp_path: Path) -> None:
    """The box of a square is where the square is, and the same as without the short cut."""
    image = np.zeros((960, 1280, 3), np.uint8)
    image[240:480, 640:960] = 255
    cv2.imwrite(str(tmp_path / "a.jpg"), image)
    one = {"id": 5, "image_id": 9, "category_id": 1, "bbox": [640, 240, 320, 240]}
    images = [{"id": 9, "file_name": "a.jpg", "width": 1280, "height": 960}]
    whole = {"images": images, "categories": [{"id": 1, "name": "x"}], "annotations": [one]}
    (tmp_path / "some.json").write_text(json.dumps(whole))
    resize: dict[str, Any] = {"type": "Resize", "short": [180, 210], "long": 400}
    crop = {"type": "RandomCrop", "p": 0.0}
    quick, slow = (
        CocoDataset(str(tmp_path / "some.json"), str(tmp_path), steps) for steps in ([resize], [crop, resize])
    )
    assert (quick.pipeline.bounds, slow.pipeline.bounds) == ((210, 400), None)
    samples = [data[SampleKey(epoch, 0, 0)] for epoch in range(4) for data in (quick, slow)]
    assert {sample.image.shape[1] for sample in samples} == {180, 210}
    for ours in samples[::2]:
        assert ours.original_size == (960, 1280)
        x0, y0, x1, y1 = ours.target.boxes[0].tolist()
        scale = ours.image.shape[1] / 960
        np.testing.assert_allclose((x0, y0, x1, y1), np.array([640, 240, 960, 480]) * scale, rtol=1e-6)
        shown = ours.image.float().mean(0) > 127
        columns, rows = shown.any(0).nonzero(), shown.any(1).nonzero()
        edges = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose([float(edge) for edge in edges], (x0, y0, x1, y1), atol=0.75)
