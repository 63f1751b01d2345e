"""Labels on images: every script, little covered."""

from __future__ import annotations

import numpy as np
import pytest

from tldet.runtime.label_placement import place_labels
from tldet.visualize import labels
from tldet.visualize.labels import paint, render, without_font


def boxes_of(seed: int, count: int, shape: tuple[int, int] = (480, 640)) -> np.ndarray:
    random = np.random.default_rng(seed)
    start = random.uniform(0, (shape[1] - 40, shape[0] - 40), (count, 2))
    return np.concatenate([start, start + random.uniform(20, 120, (count, 2))], 1).astype(np.float32)


def covered(corners: list[tuple[int, int]], sizes: list[tuple[int, int]]) -> float:
    """Share of the labels' area that lies under other labels."""
    sheet = np.zeros((2000, 2000), int)
    for (x, y), (height, width) in zip(corners, sizes, strict=True):
        sheet[y : y + height, x : x + width] += 1
    return float((sheet - 1).clip(0).sum() / sum(height * width for height, width in sizes))


def above(boxes: np.ndarray, sizes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every label above the left corner of its box."""
    return [(max(0, int(b[0])), max(0, int(b[1] - h))) for b, (h, _) in zip(boxes, sizes, strict=True)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("count", "most"), [(10, 0.0), (30, 0.01), (60, 0.06)])
def test_labels_hardly_cover_each_other(seed: int, count: int, most: float) -> None:
    boxes, sizes = boxes_of(seed, count), [(15, 60 + 7 * (n % 3)) for n in range(count)]
    corners = place_labels(sizes, boxes, (480, 640))
    assert corners == place_labels(sizes, boxes, (480, 640))
    assert covered(corners, sizes) <= most
    assert covered(corners, sizes) <= covered(above(boxes, sizes), sizes) / 4
    for (x, y), (height, width), box in zip(corners, sizes, boxes, strict=True):
        assert 0 <= x <= 640 - width
        assert 0 <= y <= 480 - height
        assert x + width >= box[0] - 1, "at its box"
        assert x <= box[2] + 1
        assert y + 2 * height >= box[1] - 1
        assert y <= box[3] + 1


def test_two_boxes_at_one_position_get_separate_labels() -> None:
    boxes = np.array([[100, 100, 200, 200], [101, 101, 201, 201], [99, 99, 199, 199]], np.float32)
    sizes = [(16, 80)] * 3
    assert covered(place_labels(sizes, boxes, (300, 300)), sizes) == 0


def test_a_label_is_above_its_box_if_there_is_room_else_below() -> None:
    sizes = [(16, 60)]
    assert place_labels(sizes, np.array([[50, 60, 250, 180]], np.float32), (400, 300)) == [(50, 44)]
    assert place_labels(sizes, np.array([[49.6, 59.6, 250.3, 180.4]], np.float32), (400, 300)) == [(50, 44)]
    assert place_labels(sizes, np.array([[50, 4, 250, 180]], np.float32), (400, 300)) == [(50, 180)]
    beside = np.array([[50, 60, 250, 180], [40, 30, 130, 58]], np.float32)  # a box where the label would be
    assert place_labels([*sizes, (16, 20)], beside, (400, 300))[0] == (190, 44)


def test_images_smaller_than_a_label() -> None:
    for shape in ((1, 1), (5, 300), (300, 5)):
        ((x, y),) = place_labels([(16, 60)], np.array([[0, 0, shape[1], shape[0]]], np.float32), shape)
        assert 0 <= x < shape[1]
        assert 0 <= y < shape[0]
    assert place_labels([], np.zeros((0, 4), np.float32), (9, 9)) == []


@pytest.mark.parametrize("text", ["cat", "Zürich", "Тромбоцит", "κύτταρο", "صفيحة", "ệ", "😀"])
def test_scripts_of_the_default_font_are_drawn(text: str) -> None:
    assert not without_font([text])
    drawn, marks = render(text, 20), render("?" * len(text), 20)
    assert drawn.shape[0] == marks.shape[0] == render("x", 20).shape[0]
    assert drawn.max() > 150
    assert drawn.shape != marks.shape or not np.array_equal(drawn, marks)


@pytest.fixture
def no_system_fonts(monkeypatch: pytest.MonkeyPatch) -> None:
    for cached in (labels.render, labels._font_with):
        if hasattr(cached, "cache_clear"):
            cached.cache_clear()
    monkeypatch.setattr(labels, "_system_fonts", lambda: ())


@pytest.mark.usefixtures("no_system_fonts")
def test_characters_without_a_glyph_are_written_in_ascii() -> None:
    assert without_font(["cat", "猫", "猫 é", "a\u200bb"]) == ["猫", "猫 é"]
    assert np.array_equal(render("猫 é", 20), render("\\u732b é", 20))
    assert np.array_equal(render("ｋ\ue123", 20), render("k\\ue123", 20)), "a wide letter, a private one"
    assert np.array_equal(render("a\u200b\ufe0f\nb", 20), render("a b", 20))
    assert render("", 20).shape[0] == render("a", 20).shape[0]
    labels._font_with.cache_clear()


def test_a_character_comes_from_the_first_font_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    other = labels._default_font().replace("DejaVuSans.ttf", "STIXGeneral.ttf")
    labels._font_with.cache_clear()
    monkeypatch.setattr(labels, "_system_fonts", lambda: ("/none.ttf", __file__, other))
    character = next(
        chr(c) for c in labels._charmap(other) if c > 0x2000 and not labels._has_glyph(labels._default_font(), chr(c))
    )
    assert labels._font_with(character) == other
    assert labels._font_with("a") == labels._default_font()
    assert not without_font([f"a{character}b"])
    wide = render(f"a{character}b", 20)
    assert wide.shape[1] > render("ab", 20).shape[1]
    labels._font_with.cache_clear()


def test_ink_is_readable_on_its_ground() -> None:
    for ground in ((240, 228, 66), (0, 114, 178)):
        painted = paint("cat", 20, ground)
        assert painted.shape[2] == 3
        assert tuple(painted[0, 0]) == ground
        assert np.abs(painted.astype(int) - ground).sum(2).max() > 250
