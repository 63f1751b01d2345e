"""Tiles: an object on a border is reported once, and one tile is plain prediction."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou

import tldet
from tests.inference.test_batches import lively
from tldet.data.images import read_image
from tldet.errors import ConfigError
from tldet.inference.predictor import Predictor
from tldet.inference.tile_merging import TileMerger, Window
from tldet.inference.tiling import Tiling
from tldet.runtime.images import Reduced
from tldet.structures.detections import Detections
from tldet.structures.image import Size
from tldet.structures.masks import InstanceMasks, on_boxes

IMAGE = (700, 1000)
Jitter = Callable[[torch.Tensor], torch.Tensor]


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(60, 900), st.floats(0, 0.5))
def test_tiles_cover_the_image_and_overlap(height: int, width: int, size: int, overlap: float) -> None:
    tiling = Tiling(size, overlap)
    windows = tiling.windows((height, width))
    for axis, length in ((0, width), (1, height)):
        spans = sorted({(window[axis], window[axis + 2]) for window in windows})
        assert spans[0][0] == 0
        assert spans[-1][1] == length
        assert all(end - start == min(size, length) for start, end in spans)
        assert all(one[1] - other[0] >= tiling.shared for one, other in pairwise(spans))
    assert len(set(windows)) == len(windows)
    assert (len(windows) == 1) == (max(height, width) <= size)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0.2), (640, -0.1), (640, 0.6)])
def test_tiles_that_are_none(size: int, overlap: float) -> None:
    with pytest.raises(ConfigError, match="tiles must be at least 1 \\(pixel\\) and overlap between 0 and"):
        Tiling(size, overlap)


def seen(boxes: torch.Tensor, labels: torch.Tensor, window: Window, least: float, jitter: Jitter) -> Detections:
    """A perfect detector: the visible part of each object of which a part of ``least`` is visible."""
    shift = torch.tensor([window.x0, window.y0] * 2, dtype=torch.float32)
    limit = torch.tensor([window.x1 - window.x0, window.y1 - window.y0] * 2, dtype=torch.float32)
    clipped = (boxes - shift).clamp(min=0).minimum(limit)
    area = (clipped[:, 2:] - clipped[:, :2]).prod(1)
    share = area / (boxes[:, 2:] - boxes[:, :2]).prod(1)
    kept = share >= least
    found = jitter(clipped[kept]).clamp(min=0).minimum(limit)
    scores = 0.5 + 0.4 * share[kept]
    return Detections(found, scores, labels[kept], class_names=("a", "b", "c"))


def merged(
    boxes: torch.Tensor,
    labels: torch.Tensor,
    tiling: Tiling,
    size: Size,
    *,
    whole: float = 0.0,
    jitter: Jitter = lambda b: b,
) -> Detections:
    """Merge the detections of all tiles, and of the whole image for objects of sides of at least ``whole``."""
    windows = tiling.windows(size)
    found = [seen(boxes, labels, window, 0.25, jitter) for window in windows]
    large = (boxes[:, 2:] - boxes[:, :2]).amin(1) >= whole
    found.append(seen(boxes[large], labels[large], Window(0, 0, size[1], size[0]), 0.25, jitter))
    merger = TileMerger(found, windows, size, shared=tiling.shared, per_class=tiling.per_class)
    return merger.merged()


def objects(seed: int, sides: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects that do not touch each other, one in each cell of a grid."""
    random, cell = np.random.default_rng(seed), sides[1] + 4
    boxes = []
    for y in range(0, IMAGE[0] - cell + 1, cell):
        for x in range(0, IMAGE[1] - cell + 1, cell):
            extent = random.uniform(*sides, 2)
            start = np.array([x, y]) + random.uniform(0, cell - 2 - extent)
            boxes.append([*start, *(start + extent)])
    return torch.tensor(np.array(boxes, np.float32)), torch.from_numpy(random.integers(0, 3, len(boxes)))


def check_once(found: Detections, boxes: torch.Tensor, labels: torch.Tensor, least: float) -> None:
    overlap = box_iou(found.boxes, boxes)
    assert len(found) == len(boxes)
    best, rows = overlap.max(1)
    assert sorted(rows.tolist()) == list(range(len(boxes)))
    assert bool((best >= least).all()), float(best.min())
    assert torch.equal(found.labels, labels[rows])


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([200, 256, 333]), st.sampled_from([0.2, 0.3, 0.5]))
def test_small_objects_are_reported_once_and_exactly(seed: int, size: int, overlap: float) -> None:
    tiling = Tiling(size, overlap)
    boxes, labels = objects(seed, (8, tiling.shared - 1))
    check_once(merged(boxes, labels, tiling, IMAGE), boxes, labels, 0.9999)
    check_once(merged(boxes, labels, tiling, IMAGE, whole=1e9), boxes, labels, 0.9999)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.3]))
def test_objects_larger_than_the_overlap_are_joined(seed: int, overlap: float) -> None:
    """The whole image does not show them: their pieces are one object."""
    tiling = Tiling(250, overlap)
    boxes, labels = objects(seed, (tiling.shared + 20, 180))
    found = merged(boxes, labels, tiling, IMAGE, whole=1e9)
    check_once(found, boxes, labels, 0.8)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_objects_larger_than_a_tile_come_from_the_whole_image(seed: int) -> None:
    boxes, labels = objects(seed, (260, 330))
    check_once(merged(boxes, labels, Tiling(250, 0.2), IMAGE, whole=51), boxes, labels, 0.9999)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 10_000))
def test_boxes_that_are_a_little_off(seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    tiling = Tiling(256, 0.25)
    boxes, labels = objects(seed, (24, 56))

    def jitter(given: torch.Tensor) -> torch.Tensor:
        moved = given + torch.randn(given.shape, generator=random).clamp(-1.5, 1.5)
        return torch.cat([moved[:, :2], torch.maximum(moved[:, 2:], moved[:, :2] + 1)], 1)

    check_once(merged(boxes, labels, tiling, IMAGE, jitter=jitter), boxes, labels, 0.5)


def test_a_part_taken_for_another_class_is_left_out() -> None:
    """An 8 of which a tile shows the upper half looks like a 0; the next tile shows all of it."""
    tiling = Tiling(200, 0.2)
    windows = tiling.windows((200, 360))
    assert windows == [(0, 0, 200, 200), (160, 0, 360, 200)]
    whole = Detections(torch.tensor([[10.0, 50, 40, 80]]), torch.tensor([0.6]), torch.tensor([1]))
    part = Detections(torch.tensor([[170.0, 50, 199.5, 80]]), torch.tensor([0.9]), torch.tensor([2]))
    found = TileMerger([part, whole, Detections.empty()], windows, (200, 360), shared=40, per_class=True).merged()
    assert found.labels.tolist() == [1]
    assert found.boxes.tolist() == [[170, 50, 200, 80]]


def test_neighbors_of_one_class_stay_apart() -> None:
    boxes = torch.tensor([[150.0, 50, 178, 80], [179.0, 50, 205, 80], [150.0, 81, 178, 110]])
    labels = torch.tensor([0, 0, 0])
    check_once(merged(boxes, labels, Tiling(200, 0.2), (200, 360)), boxes, labels, 0.9999)


def test_overlapping_objects_of_one_tile_stay() -> None:
    """The detector decides about two boxes of one view, not the merging."""
    windows = Tiling(200, 0.2).windows((200, 360))
    pair = Detections(
        torch.tensor([[10.0, 10, 50, 50], [12.0, 10, 52, 50]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0])
    )
    found = TileMerger([pair, Detections.empty(), Detections.empty()], windows, (200, 360), shared=40, per_class=True)
    assert len(found.merged()) == 2


def test_nothing_found() -> None:
    windows = Tiling(200, 0.2).windows((200, 360))
    assert len(TileMerger([Detections.empty()] * 3, windows, (200, 360), shared=40, per_class=True).merged()) == 0


def test_masks_move_and_join() -> None:
    """A disk that is cut by a border is one disk."""
    size, windows = (200, 360), Tiling(200, 0.2).windows((200, 360))
    rows, columns = torch.meshgrid(torch.arange(200) + 0.5, torch.arange(360) + 0.5, indexing="ij")
    disk = ((columns - 180) ** 2 + (rows - 100) ** 2 < 60**2).float()
    given = torch.tensor([[120.0, 40, 240, 160]])

    def view(window: Window) -> Detections:
        shift = torch.tensor([window.x0, window.y0] * 2)
        limit = torch.tensor([window.x1 - window.x0, window.y1 - window.y0] * 2)
        box = (given - shift).clamp(min=0).minimum(limit)
        x0, y0, x1, y1 = (box[0] + shift).int().tolist()
        patch = torch.nn.functional.interpolate(disk[None, None, y0:y1, x0:x1], (56, 56), mode="bilinear")[0]
        masks = InstanceMasks(patch, box, (200, 200))
        return Detections(box, torch.tensor([0.9]), torch.tensor([0]), masks)

    nothing = view(Window(0, 0, 360, 200))[:0]
    found = TileMerger([view(windows[0]), view(windows[1]), nothing], windows, size, shared=40, per_class=True).merged()
    assert found.boxes.tolist() == given.tolist()
    dense = found.dense_masks()
    assert dense is not None
    both = (dense[0].bool() & disk.bool()).sum() / (dense[0].bool() | disk.bool()).sum()
    assert dense.shape == (1, *size)
    assert both > 0.95


def test_patches_on_their_own_boxes_are_unchanged() -> None:
    patches, boxes = torch.rand(3, 28, 28), torch.tensor([[0.0, 0, 10, 20], [5.0, 5, 6, 7], [-3.0, 2, 100, 50]])
    masks = InstanceMasks(patches, boxes, (100, 100))
    torch.testing.assert_close(on_boxes(masks, boxes), patches, atol=1e-4, rtol=1e-4)
    far = on_boxes(masks, boxes + 1000)
    assert not far.any()


@pytest.mark.parametrize("recipe", ["retinanet_lite0", "mask_rcnn_lite0"])
def test_one_tile_is_plain_prediction(recipe: str, tmp_path: Path) -> None:
    plain, tiled = lively(recipe), lively(recipe)
    tiled.tiling = Tiling(400, 0.2)
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 12, 3), np.uint8), (400, 304))
    cv2.imwrite(str(tmp_path / "a.jpg"), pixels)
    assert plain.open(tmp_path / "a.jpg").factor == tiled.open(tmp_path / "a.jpg").factor == 4
    for image in (tmp_path / "a.jpg", (tmp_path / "a.jpg").read_bytes(), pixels):
        one, other = plain.predict(image, 0.0), tiled.predict(image, 0.0)
        assert len(one) > 0
        for name in ("boxes", "scores", "labels"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        if one.masks is not None:
            assert torch.equal(one.masks.patches, other.masks.patches)
            assert torch.equal(one.masks.boxes, other.masks.boxes)


@pytest.mark.parametrize("recipe", ["retinanet_lite0", "mask_rcnn_lite0"])
def test_a_tile_is_predicted_as_an_image_of_its_own(recipe: str) -> None:
    predictor = lively(recipe)
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 14, 3), np.uint8), (180, 120))
    predictor.tiling = Tiling(100, 0.2)
    prepared = predictor.prepare(Reduced(np.asarray(pixels, np.uint8)))
    assert prepared.tiles is not None
    assert len(prepared.samples) == 2 * 2 + 1
    found = predictor.predict([pixels, pixels], 0.0)
    assert len(found) == 2
    assert torch.equal(found[0].boxes, found[1].boxes)
    views = [pixels[w.y0 : w.y1, w.x0 : w.x1] for w in prepared.tiles.windows]
    predictor.tiling = None
    whole = prepared.tiles.merge([*(predictor.predict(view, 0.0) for view in views), predictor.predict(pixels, 0.0)])
    assert abs(len(whole) - len(found[0])) <= 2, "ties of rounding"
    if recipe.startswith("mask"):
        assert found[0].dense_masks().shape == (len(found[0]), 120, 180)


def test_options_of_load(run: Path, digits: Path) -> None:
    predictor = tldet.load(run / "best.pt", tiles=64, overlap=0.25, nms_per_class=False)
    assert predictor.tiling == Tiling(64, 0.25, per_class=False)
    image = read_image(sorted((digits / "test").glob("*.jpg"))[0])
    assert isinstance(predictor, Predictor)
    assert len(predictor.predict(image, 0.01)) > 0
