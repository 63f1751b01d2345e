"""Tiles as a training transform."""

from __future__ import annotations

import numpy as np
import pytest

from tldet.data.crops import RandomTile
from tldet.data.transforms import Draws, LabeledSample, Pipeline


def sample(size: tuple[int, int] = (300, 500), *, masks: bool = False) -> LabeledSample:
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint32).astype(np.uint8).reshape(*size, 3)
    boxes = np.array([[10, 20, 30, 50], [400, 200, 460, 260]], np.float32)
    drawn = np.zeros((2, *size), np.uint8)
    for mask, (x0, y0, x1, y1) in zip(drawn, boxes.astype(int), strict=True):
        mask[y0:y1, x0:x1] = 1
    labels = np.array([3, 5])
    return LabeledSample(pixels, boxes, np.arange(2), np.zeros(2, bool), drawn if masks else None, labels=labels)


def draws(seed: int) -> Draws:
    return Draws(np.random.default_rng(seed), np.random.default_rng(0))


@pytest.mark.parametrize("masks", [False, True])
def test_tiles_show_what_the_image_shows(masks: bool) -> None:
    whole, shown = sample(masks=masks), 0
    for seed in range(200):
        tile = RandomTile(100, p=1.0)(whole, draws(seed))
        assert tile.image.shape == (100, 100, 3)
        shown += len(tile.boxes) > 0
        for row, box, ignored in zip(tile.rows, tile.boxes, tile.ignore, strict=True):
            x0, y0, x1, y1 = box.astype(int)
            first = whole.boxes[row].astype(int)
            visible = (x1 - x0) * (y1 - y0) / ((first[2] - first[0]) * (first[3] - first[1]))
            assert ignored == (visible < 0.3)
            if visible == 1:
                part = whole.image[first[1] : first[3], first[0] : first[2]]
                np.testing.assert_array_equal(tile.image[y0:y1, x0:x1], part)
        if masks:
            assert tile.masks is not None
            assert tile.masks.shape == (len(tile.boxes), 100, 100)
    assert shown / 200 > 0.75, "most tiles are placed over an object"


def test_images_that_fit_and_some_others_are_not_cut() -> None:
    whole = sample()
    assert RandomTile(500, p=1.0)(whole, draws(0)) is whole
    cut = [RandomTile(100, p=0.5)(whole, draws(seed)) is not whole for seed in range(200)]
    assert 0.35 < np.mean(cut) < 0.65
    tile = RandomTile(400, p=1.0)(whole, draws(0))
    assert tile.image.shape == (300, 400, 3), "lower than a tile"


def test_in_a_pipeline_the_image_is_read_at_full_size() -> None:
    pipeline = Pipeline([{"type": "RandomTile", "size": 100}, {"type": "Resize", "short": 64, "long": 64}])
    assert pipeline.bounds is None
    one, again = (pipeline(sample(), [1, 2], [3]) for _ in range(2))
    assert max(one.image.shape[:2]) == 64
    np.testing.assert_array_equal(one.image, again.image)


@pytest.mark.parametrize("wrong", [{"size": 0}, {"size": 10, "p": 2}, {"size": 10, "on_object": -1}])
def test_wrong_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(Exception, match="must be"):
        RandomTile(**wrong)  # type: ignore[arg-type]
