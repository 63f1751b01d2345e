"""Run lengths are encoded as pycocotools encodes them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from tldet.runtime.masks import MaskWindow, compress_runs, encode_window
from tldet.structures.rle import run_lengths


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), st.integers(0, 4), st.integers(0, 4))
def test_a_window_is_encoded_as_the_whole_mask(inside: np.ndarray, top: int, left: int) -> None:
    whole = np.zeros((top + inside.shape[0], left + inside.shape[1] + 2), np.uint8)
    window = MaskWindow(top, left, inside)
    window.copy_to(whole)
    expected = coco_mask.encode(np.asfortranarray(whole))
    assert encode_window(window, whole.shape) == {"size": expected["size"], "counts": expected["counts"].decode()}


@given(st.lists(st.integers(0, 2**28), min_size=1, max_size=12))
def test_run_lengths_are_read_again(runs: list[int]) -> None:
    assert run_lengths(compress_runs(np.array(runs))).tolist() == runs


@pytest.mark.parametrize("runs", [[0], [15], [16], [31, 32], [1023, 1024, 1], [5, 2**31, 3, 2**20, 900_000_000, 1]])
def test_runs_of_every_length(runs: list[int]) -> None:
    size = [1, sum(runs)]
    assert compress_runs(np.array(runs)) == coco_mask.frPyObjects({"size": size, "counts": runs}, *size)["counts"]
