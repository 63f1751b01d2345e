"""Detections as a value: built, selected, joined, shown and saved. Tables of input and expected value or error."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tldet.errors import DataError
from tldet.structures.batch import Batch
from tldet.structures.detections import DetectedObject, Detections
from tldet.structures.masks import InstanceMasks
from tldet.structures.target import Target
from tldet.visualize.drawing import draw

BOXES = torch.tensor([[0.0, 0.0, 10.0, 10.0], [5.0, 5.0, 20.0, 15.0], [30.0, 2.0, 40.0, 30.0]])
SCORES = torch.tensor([0.9, 0.5, 0.25])
LABELS = torch.tensor([1, 0, 1])
NAMES = ("cat", "dog")


def three(masks: Any = None) -> Detections:
    return Detections(BOXES.clone(), SCORES.clone(), LABELS.clone(), masks, NAMES)


def patches(size: tuple[int, int] = (40, 50)) -> InstanceMasks:
    return InstanceMasks(torch.ones(3, 4, 4), BOXES.clone(), size)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({}, None, ""),
        ({"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}, None, ""),
        ({"boxes": BOXES.double()}, None, ""),
        ({"labels": LABELS.int()}, None, ""),
        ({"boxes": BOXES.tolist()}, TypeError, "boxes must be a tensor, not list"),
        ({"scores": SCORES.numpy()}, TypeError, "scores must be a tensor, not ndarray"),
        ({"boxes": BOXES.long()}, TypeError, "boxes must be float, not torch.int64"),
        ({"labels": LABELS.float()}, TypeError, "labels must be int64, not torch.float32"),
        ({"labels": LABELS.bool()}, TypeError, "labels must be int64, not torch.bool"),
        ({"class_names": "cat"}, TypeError, "class_names must be a sequence of names, not the text 'cat'"),
        ({"boxes": torch.tensor(1.0)}, ValueError, "boxes must be (N, 4), not ()"),
        ({"boxes": BOXES[:, :3]}, ValueError, "boxes must be (N, 4), not (3, 3)"),
        ({"scores": SCORES[:2]}, ValueError, "scores must be (3,) like the boxes, not (2,)"),
        ({"labels": LABELS[:, None]}, ValueError, "labels must be (3,) like the boxes, not (3, 1)"),
        ({"labels": torch.tensor([0, -1, 1])}, ValueError, "label 1 must be 0 or more, not -1"),
        (
            {"boxes": BOXES[:, [2, 1, 0, 3]]},
            ValueError,
            "box 0 must have x1 >= x0 and y1 >= y0: [10.0, 0.0, 0.0, 10.0]",
        ),
        ({"masks": torch.zeros(2, 5, 5, dtype=torch.uint8)}, ValueError, "masks must be (3, H, W), not (2, 5, 5)"),
    ],
)
def test_construction(changed: dict[str, Any], error: type[Exception] | None, message: str) -> None:
    fields = {"boxes": BOXES, "scores": SCORES, "labels": LABELS, **changed}
    if error is None:
        assert len(Detections(**fields)) == len(fields["boxes"])
        return
    with pytest.raises(error, match=re.escape(message)):
        Detections(**fields)


@pytest.mark.parametrize(
    ("rows", "expected", "error"),
    [
        (torch.tensor([True, False, True]), [0, 2], None),
        ([True, False, True], [0, 2], None),
        (np.array([False, False, True]), [2], None),
        (torch.tensor([2, 0]), [2, 0], None),
        ([2, 0, 2], [2, 0, 2], None),
        ([], [], None),
        (np.array([1]), [1], None),
        (slice(1, None), [1, 2], None),
        (slice(None, None, -1), None, ValueError),  # torch has no negative steps
        (1, [1], None),
        (-1, [2], None),
        (np.int64(2), [2], None),
        (3, None, IndexError),
        ([0, -4], None, IndexError),
        ([True, False], None, IndexError),
        (torch.ones(3), None, TypeError),
        ([[0], [1]], None, TypeError),
        ("cat", None, TypeError),
        (None, None, TypeError),
    ],
)
@pytest.mark.parametrize("masks", [None, "patches", "dense"])
def test_selection(rows: Any, expected: list[int] | None, error: type[Exception] | None, masks: str | None) -> None:
    given = {None: None, "patches": patches(), "dense": patches().dense()}[masks]
    found = three(given)
    if error:
        with pytest.raises(error):
            found[rows]
        return
    chosen = found[rows]
    assert torch.equal(chosen.boxes, BOXES[expected])
    assert torch.equal(chosen.scores, SCORES[expected])
    assert torch.equal(chosen.labels, LABELS[expected])
    assert chosen.class_names == NAMES
    if given is not None:
        assert torch.equal(chosen.dense_masks(), patches().dense()[expected])


@pytest.mark.parametrize(
    ("conditions", "expected", "error"),
    [
        ({}, [0, 1, 2], None),
        ({"score": 0.5}, [0, 1], None),
        ({"score": 0.95}, [], None),
        ({"classes": "dog"}, [0, 2], None),
        ({"classes": 0}, [1], None),
        ({"classes": ["cat", 1]}, [0, 1, 2], None),
        ({"classes": []}, [], None),
        ({"classes": 7}, [], None),
        ({"classes": "dog", "score": 0.5}, [0], None),
        ({"rows": [1, 2], "score": 0.3}, [1], None),
        ({"classes": "bird"}, None, "no class is called 'bird'; cat, dog"),
    ],
)
def test_filter(conditions: dict[str, Any], expected: list[int] | None, error: str | None) -> None:
    if error:
        with pytest.raises(ValueError, match=re.escape(error)):
            three().filter(**conditions)
        return
    assert torch.equal(three().filter(**conditions).boxes, BOXES[expected])


def test_iteration_yields_each_object() -> None:
    first, *others = list(three())
    assert first == DetectedObject((0.0, 0.0, 10.0, 10.0), pytest.approx(0.9), 1, "dog", None)
    assert [one.name for one in others] == ["cat", "dog"]
    masked = three(patches())
    for one, mask in zip(masked, masked.dense_masks(), strict=True):
        assert one.mask is not None
        assert torch.equal(one.mask, mask)
    unnamed = Detections(BOXES, SCORES, LABELS)
    assert [one.name for one in unnamed] == ["1", "0", "1"]
    assert list(Detections.empty()) == []


@pytest.mark.parametrize(
    ("several", "expected", "error"),
    [
        ([], [], None),
        ([[0, 1, 2]], [0, 1, 2], None),
        ([[1, 2], [0]], [0, 1, 2], None),
        ([[2], [], [0]], [0, 2], None),
    ],
)
@pytest.mark.parametrize("masks", [None, "patches", "dense", "mixed"])
def test_merge(several: list[list[int]], expected: list[int], error: None, masks: str | None) -> None:
    parts = []
    for number, rows in enumerate(several):
        dense = masks == "dense" or (masks == "mixed" and number % 2)
        parts.append(three(None if masks is None else patches().dense() if dense else patches())[rows])
    merged = Detections.merge(parts)
    assert torch.equal(merged.boxes, BOXES[expected])
    assert torch.equal(merged.labels, LABELS[expected])
    if masks and several:
        assert torch.equal(merged.dense_masks(), patches().dense()[expected])
    if masks == "patches" and several:
        assert isinstance(merged.masks, InstanceMasks)


@pytest.mark.parametrize(
    ("several", "message"),
    [
        ([three(), three(patches())], "some detections have masks and others do not"),
        ([three(), Detections.empty(("a",))], "class names differ: a / cat, dog"),
        ([three(patches()), three(patches((9, 9)))], "different sizes: (40, 50), (9, 9)"),
    ],
)
def test_detections_that_cannot_be_merged(several: list[Detections], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Detections.merge(several)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (three(), "Detections(3 objects: 2 dog, 1 cat; scores 0.25 to 0.90)"),
        (three(patches())[:1], "Detections(1 object: 1 dog; scores 0.90 to 0.90; masks)"),
        (Detections.empty(), "Detections(0 objects)"),
        (Target(BOXES, LABELS, image_id=7), "Target(3 objects, image_id=7)"),
        (
            Batch(torch.zeros(1, 3, 32, 64), [(30, 60)], [Target(BOXES, LABELS)], [(30, 60)]),
            "Batch(1 image of 32x64, 3 objects)",
        ),
    ],
)
def test_repr_is_one_short_line(value: Any, expected: str) -> None:
    assert repr(value) == expected


def test_html_escapes_names_and_ends_after_20_rows() -> None:
    many = Detections(BOXES[:1].repeat(25, 1), torch.full((25,), 0.5), torch.zeros(25).long(), class_names=("<b>&",))
    shown = many._repr_html_()
    assert shown.count("<tr>") == 21
    assert "5 more detections" in shown
    assert "&lt;b&gt;&amp;" in shown
    assert "<b>" not in shown


def test_drawn_and_plotted_images_agree_for_every_kind_of_image(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)
    file = tmp_path / "image.png"
    Image.fromarray(pixels).save(file)
    expected = draw(pixels, three())
    assert (expected != pixels).any()
    for image in (pixels, Image.fromarray(pixels), file, str(file)):
        np.testing.assert_array_equal(three().draw(image), expected)
    plotted = three().plot(file)
    assert isinstance(plotted, Image.Image)
    np.testing.assert_array_equal(np.asarray(plotted), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("missing.png", "missing.png: cannot be read as an image"),
        (np.zeros((3, 4), np.uint8), "must be (H, W, 3) uint8 RGB, not ndarray uint8 (3, 4)"),
        (np.zeros((3, 4, 3)), "must be (H, W, 3) uint8 RGB, not ndarray float64 (3, 4, 3)"),
        (None, "must be (H, W, 3) uint8 RGB, not NoneType"),
    ],
)
def test_images_that_cannot_be_drawn_on(image: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        three().draw(image)


def test_a_photo_on_its_side_is_drawn_upright(tmp_path: Path) -> None:
    file = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (50, 40)).save(file, exif=exif)
    assert three().draw(file).shape == (50, 40, 3)


def test_saved_as_coco_results_and_table(tmp_path: Path) -> None:
    three(patches()).save(tmp_path / "a.json", image_id=5, category_ids=[10, 20])
    records = json.loads((tmp_path / "a.json").read_text())
    assert [record["category_id"] for record in records] == [20, 10, 20]
    assert records[1]["bbox"] == [5.0, 5.0, 15.0, 10.0]
    assert all(record["image_id"] == 5 and record["segmentation"]["size"] == [40, 50] for record in records)
    three().save(tmp_path / "a.csv", file_name="x.jpg")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file_name"], row["category_id"], row["category_name"]) for row in rows][:2] == [
        ("x.jpg", "1", "dog"),
        ("x.jpg", "0", "cat"),
    ]
    Detections.empty().save(tmp_path / "none.json")
    assert json.loads((tmp_path / "none.json").read_text()) == []
    with pytest.raises(DataError, match=r"a\.xml: detections are saved as \.json"):
        three().save(tmp_path / "a.xml")
