"""Run-length masks against pycocotools."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from tldet import rle
from tldet.masks import rles

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
            assert rle.problem_with(form, size) is None
            np.testing.assert_array_equal(coco_mask.decode(rle.to_rle(form, size)), pixels)


def test_run_lengths_of_a_large_mask() -> None:
    pixels = (np.random.default_rng(0).random((600, 800)) > 0.999).astype(np.uint8)
    pixels[:, 300:500] = 1
    (one,) = rles(torch.from_numpy(pixels[None]))
    assert rle.run_lengths(one["counts"].encode())[1::2].sum() == pixels.sum()


@pytest.mark.parametrize("counts", [b"", b"P", b"0\x10", b"0z", "0é".encode()])
def test_what_is_no_rle(counts: bytes) -> None:
    with pytest.raises(ValueError, match="not a compressed RLE"):
        rle.run_lengths(counts)


def test_many_areas() -> None:
    """More than 255 at once break `pycocotools.mask.area` under numpy 2."""
    areas, boxes = rle.areas_and_boxes(rles(torch.ones(300, 2, 3, dtype=torch.uint8)))
    assert areas.tolist() == [6.0] * 300
    assert boxes.tolist() == [[0, 0, 3, 2]] * 300
