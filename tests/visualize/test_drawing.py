"""Drawn boxes lie where they should; a wrong drawing hides a wrong box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from PIL import ImageColor

from tldet.data.images import read_image
from tldet.runtime.drawing import PALETTE, color_of
from tldet.structures.detections import Detections
from tldet.visualize.curves import IntervalSeries, plot_curves, plot_intervals, plot_variants
from tldet.visualize.drawing import draw, grid
from tldet.visualize.page.plots import COLORS


def found(box: list[float], label: int = 0, masks: torch.Tensor | None = None) -> Detections:
    return Detections(torch.tensor([box]), torch.tensor([0.9]), torch.tensor([label]), masks, ("cat", "dög"))


def test_a_box_is_drawn_on_its_edges() -> None:
    image = np.zeros((200, 300, 3), np.uint8)
    drawn = draw(image, found([50.0, 60.0, 250.0, 180.0]))
    assert not image.any(), "the image given stays as it was"
    color = np.array(PALETTE[0])
    for y, x in ((180, 150), (120, 50), (120, 250), (60, 240)):
        assert np.abs(drawn[y, x].astype(int) - color).max() < 40, (y, x)
    assert not drawn[120, 150].any()
    assert drawn[48:60, 50:100].any(), "the name stands above the corner"


def test_names_stay_inside_and_boxes_may_leave_the_image() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    for box in ([0.0, 0.0, 60.0, 40.0], [-5.0, -5.0, 400.0, 300.0], [58.0, 38.0, 60.0, 40.0]):
        drawn = draw(image, found(box, 1))
        assert drawn.shape == image.shape
        assert drawn.any()
    assert draw(np.zeros((1, 1, 3), np.uint8), found([0.0, 0.0, 1.0, 1.0])).shape == (1, 1, 3)


def test_the_best_lies_on_top() -> None:
    masks = torch.ones(2, 40, 60, dtype=torch.uint8)
    two = Detections(torch.tensor([[0.0, 0, 60, 40]] * 2), torch.tensor([0.9, 0.2]), torch.tensor([0, 1]), masks)
    pixel = draw(np.zeros((40, 60, 3), np.uint8), two)[25, 50].astype(float)
    under, over = (0.45 * np.array(color_of(label)) for label in (1, 0))
    assert np.abs(pixel - (0.55 * under + over)).max() < 4


def test_masks_tint_their_pixels() -> None:
    mask = torch.zeros(1, 50, 50, dtype=torch.uint8)
    mask[0, 10:20, 10:20] = 1
    drawn = draw(np.full((50, 50, 3), 100, np.uint8), found([30.0, 30.0, 45.0, 45.0], masks=mask))
    assert (drawn[15, 15] != 100).any()
    assert (drawn[5, 15] == 100).all()


def test_colors_differ_for_a_while() -> None:
    assert len({color_of(label) for label in range(28)}) == 28


def test_grid_and_curves(tmp_path: Path) -> None:
    sheet = grid([np.zeros((10, 20, 3), np.uint8)] * 4, columns=3, gap=2)
    assert sheet.shape == (22, 64, 3)
    assert (sheet[:, 20:22] == 255).all()
    log = tmp_path / "log.jsonl"
    records = [{"type": "train", "step": 1, "loss": 2.0}, {"type": "val", "step": 1, "AP": 0.1, "AP50": 0.2}]
    log.write_text("\n".join(json.dumps(r) for r in records))
    image = read_image(plot_curves({"one": log}, tmp_path / "c.png"))
    assert image.std() > 5


def test_intervals_of_variants_and_of_numbers_of_images(tmp_path: Path) -> None:
    rows = [(10.0, 0.3, 0.2, 0.35), (40.0, 0.5, 0.45, 0.55)]
    by_number = plot_intervals(
        {"a": IntervalSeries(rows), "b": IntervalSeries(rows, rows)}, tmp_path / "n.png", title="t", xlabel="n"
    )
    by_variant = plot_variants({"a": (0.3, 0.2, 0.4), "b": (0.5, 0.5, 0.5)}, tmp_path / "a.png", title="t")
    for path in (by_number, by_variant):
        colors = {tuple(pixel) for pixel in read_image(path).reshape(-1, 3).tolist()}
        assert ImageColor.getrgb(COLORS[0]) in colors, "the first one's own"
        assert (ImageColor.getrgb(COLORS[1]) in colors) == (path == by_number)
