"""The generated datasets of the benchmark "quality": files, tight boxes, what is annotated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from benchmarks.quality import aerial, cards
from benchmarks.quality.scenes import photographed, write_dataset
from tldet.data.generated import ANNOTATIONS_NAME
from tldet.structures import rle

SIZE = (144, 192)


def extent(mask: Any) -> tuple[int, int, int, int]:
    rows, columns = np.where(mask.any(1))[0], np.where(mask.any(0))[0]
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


@pytest.mark.parametrize(("scenes", "names"), [(aerial.aerial, aerial.VEHICLES), (cards.cards, cards.CARDS)])
def test_the_same_seed_gives_the_same_files(scenes: Any, names: tuple[str, ...], tmp_path: Path) -> None:
    given: dict[str, Any] = {"counts": (1, 1), "size": SIZE}
    folders = [
        write_dataset(tmp_path / name, scenes, names, seed=seed, **given)
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    ]
    files = [{path.relative_to(f): path.read_bytes() for path in sorted(f.rglob("*.*"))} for f in folders]
    assert files[0] == files[1]
    assert len(files[0]) == 1 + 2 + 2  # settings, annotations, images
    assert all(files[0][path] != files[2][path] for path in files[0])
    train, test = (json.loads((folders[0] / split / ANNOTATIONS_NAME).read_text()) for split in ("train", "test"))
    assert [one["name"] for one in train["categories"]] == list(names)
    assert len(train["annotations"]) >= 2
    assert (train["images"][0]["height"], train["images"][0]["width"]) == SIZE
    assert cv2.imread(str(folders[0] / "train" / "00001.jpg")).shape == (*SIZE, 3)
    annotations = train["annotations"] + test["annotations"]
    areas, boxes = rle.areas_and_boxes([rle.to_rle(one["segmentation"], SIZE) for one in annotations])
    assert boxes.tolist() == [one["bbox"] for one in annotations]
    assert areas.tolist() == [one["area"] for one in annotations]


def test_a_complete_dataset_is_kept_and_another_one_replaces_it(tmp_path: Path) -> None:
    given: dict[str, Any] = {"counts": (1, 1), "seed": 0}
    write_dataset(tmp_path, aerial.aerial, aerial.VEHICLES, size=(48, 64), **given)
    image = tmp_path / "train" / "00001.jpg"
    before = image.stat().st_mtime_ns
    write_dataset(tmp_path, aerial.aerial, aerial.VEHICLES, size=(48, 64), **given)
    assert image.stat().st_mtime_ns == before
    write_dataset(tmp_path, aerial.aerial, aerial.VEHICLES, size=(64, 64), **given)
    assert cv2.imread(str(image)).shape == (64, 64, 3)


@pytest.mark.parametrize("kind", aerial.VEHICLES)
def test_the_mask_of_a_vehicle_covers_what_was_drawn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared with the image before; without shadows, which are no part of an object."""
    monkeypatch.setattr(aerial, "SHADOW", 0)
    random = np.random.default_rng(5)
    terrain = aerial.draw_terrain(random, (240, 320))
    terrain.water[:] = kind == "boat"
    terrain.image[:] = (120, 20, 220)  # a color that no vehicle has
    for _ in range(4):
        before = terrain.image.copy()
        mask = aerial.add_vehicle(terrain, kind, random)
        assert mask is not None
        changed = np.abs(terrain.image - before).max(2) > 12
        far = cv2.dilate(mask, np.ones((3, 3), np.uint8)) == 0
        assert not changed[far].any()
        assert np.abs(np.subtract(extent(mask), extent(changed))).max() <= 1
        longest = max(aerial.LENGTHS[kind])
        assert 4 <= max(np.subtract(extent(mask)[2:], extent(mask)[:2])) <= longest + 3


def test_vehicles_stand_apart_boats_on_water() -> None:
    random = np.random.default_rng(0)
    terrain = aerial.draw_terrain(random, (360, 480))
    masks = [(kind, aerial.add_vehicle(terrain, kind, random)) for kind in aerial.VEHICLES * 4]
    assert sum(mask is not None for _, mask in masks) >= 8
    assert np.sum([mask for _, mask in masks if mask is not None], axis=0).max() == 1
    for kind, mask in masks:
        assert mask is None or (terrain.water[mask > 0] == (kind == "boat")).all()


def test_the_boxes_of_cards_hold_the_ink_of_an_index() -> None:
    """A lone card: ink at all four sides of its boxes, in the color of its suit, and paper around them."""
    random = np.random.default_rng(2)
    for label in (0, 9, 17, 30, 41, 51):
        table, seen = np.full((480, 640, 3), (40, 160, 60), np.float32), list[cards.Seen]()
        assert cards.lay(table, seen, label, random)
        assert [one.label for one in seen] == [label, label]
        for one in seen:
            x0, y0, x1, y1 = extent(one.mask)
            ink = table.sum(2) < 620
            assert all(side.any() for side in (ink[y0, x0:x1], ink[y1 - 1, x0:x1], ink[y0:y1, x0], ink[y0:y1, x1 - 1]))
            red = table[one.mask > 0].mean(0)
            assert (red[0] > red[1] + 60) == (cards.SUITS[label // 13] in ("diamonds", "hearts"))
            ring = cv2.dilate(one.mask, np.ones((5, 5), np.uint8)) - cv2.dilate(one.mask, np.ones((3, 3), np.uint8))
            assert np.median(table[ring > 0].sum(1)) > 650


def test_partly_covered_indices_are_not_annotated_and_never_half_visible() -> None:
    random = np.random.default_rng(7)
    for _ in range(3):
        table, seen = np.zeros((240, 320, 3), np.float32), list[cards.Seen]()
        laid = sum(cards.lay(table, seen, label, random) for label in random.integers(52, size=9).tolist())
        assert laid >= 3
        assert all(one.mask.sum() >= cards.VISIBLE * one.pixels for one in seen)
        assert np.sum([one.mask for one in seen], axis=0).max() == 1


def test_every_card_occurs_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    laid: list[int] = []

    def lay(table: Any, seen: Any, label: int, random: np.random.Generator) -> bool:
        found = random.random() < 0.7
        laid.extend([label] * found)
        return found

    monkeypatch.setattr(cards, "lay", lay)
    list(cards.cards(60, np.random.default_rng(0), (24, 32)))
    counts = [laid.count(label) for label in range(52)]
    assert max(counts) - min(counts) <= 1 < max(counts)


def test_cards_differ_in_their_indices_only_by_rank_and_suit() -> None:
    def drawn(label: int) -> Any:
        return cards.draw_card(label, np.random.default_rng(1))[1][0] > 0.5

    assert not (drawn(0) == drawn(13)).all(), "the same rank, another suit"
    assert not (drawn(0) == drawn(1)).all()
    assert len({drawn(label).tobytes() for label in range(52)}) == 52


def test_a_photograph_keeps_its_size() -> None:
    found = photographed(np.full((40, 60, 3), 120, np.float32), np.random.default_rng(0))
    assert (found.shape, found.dtype) == ((40, 60, 3), np.uint8)
    assert 60 < found.mean() < 180
