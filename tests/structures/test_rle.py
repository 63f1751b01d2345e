"""Run-length masks against pycocotools."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from tldet.structures import rle
from tldet.structures.masks import rles

MASKS = arrays(
    np.uint8, st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 70)), elements=st.integers(0, 1)
)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.mask.decode
@given(MASKS)
def test_encoded_masks(drawn: np.ndarray) -> None:
    size = (int(drawn.shape[1]), int(drawn.shape[2]))
    encoded = rles(torch.from_numpy(drawn))
    json.dumps(encoded)
    areas, boxes = rle.areas_and_boxes(encoded)
    assert areas.tolist() == drawn.sum((1, 2)).tolist()
    assert boxes.shape == (len(drawn), 4)
    for one, pixels in zip(encoded, drawn, strict=True):
        runs = rle.run_lengths(one["counts"].encode())
        values = np.arange(len(runs)) % 2
        np.testing.assert_array_equal(np.repeat(values, runs).reshape(size, order="F"), pixels)
        uncompressed = {"size": list(size), "counts": runs.tolist()}
        for form in (one, uncompressed, {**one, "counts": one["counts"].encode()}):
            assert rle.segmentation_problem(form, size) is None
            np.testing.assert_array_equal(coco_mask.decode(rle.to_rle(form, size)), pixels)


def test_run_lengths_of_a_large_mask() -> None:
    pixels = (np.random.default_rng(0).random((600, 800)) > 0.999).astype(np.uint8)
    pixels[:, 300:500] = 1
    (one,) = rles(torch.from_numpy(pixels[None]))
    assert rle.run_lengths(one["counts"].encode())[1::2].sum() == pixels.sum()


@pytest.mark.parametrize("counts", [b"", b"P", b"0\x10", b"0z", "0é".encode()])
def test_invalid_rles(counts: bytes) -> None:
    with pytest.raises(ValueError, match="not a compressed RLE"):
        rle.run_lengths(counts)


def test_many_areas() -> None:
    """More than 255 at once break `pycocotools.mask.area` under numpy 2."""
    areas, boxes = rle.areas_and_boxes(rles(torch.ones(300, 2, 3, dtype=torch.uint8)))
    assert areas.tolist() == [6.0] * 300
    assert boxes.tolist() == [[0, 0, 3, 2]] * 300


SQUARE = [1, 1, 5, 1, 5, 4, 1, 4]
FAR = [
    [[0, 0, 1e9, 0, 1e9, 1e9]],
    [[0, 0, 5e7, 0, 5e7, 5e7]],
    [[-3e9, 2, 4, 2, 4, 5]],
    [[1e9, 1e9, 1e9 + 4, 1e9, 1e9, 1e9 + 4]],  # small, but beyond 32 bits once it is scaled
    [[1e300, 0, -1e300, 5, 0, 1e300]],
    [SQUARE, [0, 0, 2**40, 0, 0, 2**40]],
    [[0, 0, 20_000, 3] * 100],  # a zigzag
]


@pytest.mark.parametrize("side", [2e9, 5e8, 3e7])
def test_polygons_too_long_for_any_image(side: float) -> None:
    """The stated size of an image is no reason to allocate gigabytes or to leave 32 bits."""
    size = (60_000, 70_000)
    assert "has a polygon far larger than its image" in str(
        rle.segmentation_problem([[0, 0, side, 0, side, side]], size)
    )
    assert rle.segmentation_problem([[0, 0, 70_000, 0, 70_000, 60_000, 0, 60_000]], size) is None


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("polygons", FAR, ids=lambda polygons: str(polygons)[:40])
def test_polygons_far_larger_than_their_image(polygons: list[list[float]]) -> None:
    assert "has a polygon far larger than its image" in str(rle.segmentation_problem(polygons, (480, 640)))


@pytest.mark.parametrize(
    "polygon",
    [
        [-10_000, -10_000, 10_000, -10_000, 10_000, 10_000, -10_000, 10_000],  # a tile of a large image
        [0, 0, 640.4, 0, 640.4, 480.4, 0, 480.4],
        [100_000, 100_000, 100_004, 100_000, 100_000, 100_004],
        [0, 0, 60, 3] * 200,
        [x for n in range(2000) for x in (300 + 200 * np.cos(n / 320), 200 + 200 * np.sin(n / 320))],
    ],
    ids=["around", "border", "outside", "zigzag", "fine"],
)
def test_polygons_over_the_border_are_those_of_pycocotools(polygon: list[float]) -> None:
    assert rle.segmentation_problem([polygon], (480, 640)) is None
    expected = coco_mask.merge(coco_mask.frPyObjects([polygon], 480, 640))
    assert rle.to_rle([polygon], (480, 640)) == expected


WRAPS = {"size": [6, 8], "counts": [2**63 - 1, 2**63 - 1, 2, 48]}  # the sum is 48 in 64 bits
BAD_RLES = [
    ({"size": [6.0, 8.0], "counts": [48]}, (6, 8), "has an RLE of size [6.0, 8.0]; it must be two integers"),
    ({"size": [True, 48], "counts": [48]}, (0, 0), "two integers"),
    ({"size": [6, 8, 1], "counts": [48]}, (6, 8), "two integers"),
    ({"size": [[6], [8]], "counts": [48]}, (6, 8), "two integers"),
    ({"size": "68", "counts": [48]}, (6, 8), "two integers"),
    ({"size": {"6": 8}, "counts": [48]}, (6, 8), "two integers"),
    ({"size": [-6, -8], "counts": [48]}, (0, 0), "between 1 and 4294967295 pixels"),
    ({"size": [0, 0], "counts": []}, (0, 0), "between 1 and 4294967295 pixels"),
    ({"size": [2**16, 2**16], "counts": [2**32]}, (0, 0), "between 1 and 4294967295 pixels"),
    ({"size": [2**63, 2**63], "counts": [2**126]}, (0, 0), "between 1 and 4294967295 pixels"),
    ({"size": [10**5000, 1], "counts": [1]}, (0, 0), "neither a list of polygons nor an RLE"),
    ({"size": [2**31, 2**31], "counts": [2**62]}, (2**31, 2**31), "too large for masks"),
    ({"size": [6, 8], "counts": [[48]]}, (6, 8), "counts are not a flat list of integers"),
    ({"size": [6, 8], "counts": [[40], [8]]}, (6, 8), "counts are not a flat list of integers"),
    ({"size": [6, 8], "counts": [[40], [8, 1]]}, (6, 8), "neither a list of polygons nor an RLE"),
    ({"size": [6, 8], "counts": [47.5, 0.5]}, (6, 8), "counts are not a flat list of integers"),
    ({"size": [6, 8], "counts": [True] * 48}, (6, 8), "counts are not a flat list of integers"),
    ({"size": [6, 8], "counts": [None]}, (6, 8), "counts are not a flat list of integers"),
    ({"size": [6, 8], "counts": ["48"]}, (6, 8), "counts are not a flat list of integers"),
    ({"size": [6, 8], "counts": []}, (6, 8), "counts"),
    (WRAPS, (6, 8), "counts do not fill its size [6, 8]"),
    ({"size": [6, 8], "counts": [2**64 - 1, 49]}, (6, 8), "counts"),
    ({"size": [6, 8], "counts": [2**70]}, (6, 8), "counts"),
    ({"size": [6, 8], "counts": "oooooooooooooooo0"}, (6, 8), "neither a list of polygons nor an RLE"),
    ({"size": [6, 8], "counts": "é"}, (6, 8), "neither a list of polygons nor an RLE"),
    ({"size": [6, 8], "counts": "\ud800"}, (6, 8), "neither a list of polygons nor an RLE"),
    ({"size": [6, 8], "counts": {"a": 1}}, (6, 8), "neither a list of polygons nor an RLE"),
    ({"size": [6, 8], "counts": None}, (6, 8), "neither a list of polygons nor an RLE"),
    (3, (6, 8), "neither a list of polygons nor an RLE"),
    (["a"], (6, 8), "neither a list of polygons nor an RLE"),
    ([[1, 2, 3, 4, 5, [6]]], (6, 8), "neither a list of polygons nor an RLE"),
    ([[1, 2, 3, 4, 5, 10**5000]], (6, 8), "neither a list of polygons nor an RLE"),
    ([[1, 2, 3, 4, 5, None]], (6, 8), "not finite"),
    ([[True] * 6], (6, 8), None),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("segmentation", "size", "expected"), BAD_RLES, ids=range(len(BAD_RLES)))
def test_malformed_segmentations(segmentation: object, size: tuple[int, int], expected: str | None) -> None:
    problem = rle.segmentation_problem(segmentation, size)
    assert problem is None if expected is None else expected in str(problem)


def _values(draw: st.DrawFn) -> object:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4)
    numbers = st.lists(scalars, max_size=9)
    rles = st.fixed_dictionaries(
        {"size": numbers | scalars | st.just([3, 4]), "counts": numbers | scalars | st.binary()}
    )
    return draw(scalars | st.lists(numbers | scalars, max_size=3) | rles)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@given(st.composite(_values)(), st.sampled_from([(0, 0), (3, 4)]))
def test_whatever_is_valid_is_safe_for_pycocotools(segmentation: object, size: tuple[int, int]) -> None:
    if rle.segmentation_problem(segmentation, size) is None and (size != (0, 0) or isinstance(segmentation, dict)):
        found = rle.to_rle(segmentation, size)
        if found["size"][0] * found["size"][1] < 10**6:
            assert coco_mask.decode(found).shape == tuple(found["size"])


def test_an_outline_that_is_too_long_inside_its_image() -> None:
    zigzag = [[0, 0, 639, 3] * 2000]
    assert rle.segmentation_problem(zigzag, (480, 640)) == (
        "has a polygon with an outline of 2,556,639 pixels (4,000 points), more than the limit of 1,000,000; simplify "
        "it or use an RLE"
    )


@pytest.mark.parametrize("one", [1, 1.0, True])
def test_a_mask_as_rows_of_pixels(one: float) -> None:
    """Its rows were read as polygons without area, and the mask metrics were 0."""
    rows = [[one * (x > 3) for x in range(20)] for _ in range(10)]
    problem = rle.segmentation_problem(rows, (10, 20))
    assert problem == "has a mask as rows of pixels, not polygons; use an RLE with size and counts"
    assert rle.segmentation_problem(rows, (11, 20)) is None
    assert rle.segmentation_problem([[0, 0, 1, 0, 1, 1]], (1, 6)) is None
